"""Recompute the bounds that tests/unit/test_accountants.py quotes of a package that the project does not install.

    pip install PLD-accounting==2.0
    python tests/oracles.py

It takes minutes. Every row: sigma, bins, epochs, delta, and the lower and the upper bound on epsilon.
"""

import PLD_accounting

ROWS = [
    (1.3, 234, 1, 1e-6, 0.02),
    (0.7, 234, 1, 1e-6, 0.1),
    (2.0, 100, 1, 1e-5, 0.02),
    (1.0, 10, 1, 1e-5, 0.02),
    (1.0, 10, 5, 1e-5, 0.05),
    (1.3, 234, 10, 1e-6, 0.1),
    (0.5, 50, 2, 1e-5, 0.2),
    (5.0, 20, 3, 1e-5, 0.02),
]

if __name__ == "__main__":
    for sigma, bins, epochs, delta, accuracy in ROWS:
        upper, lower = PLD_accounting.gaussian_allocation_epsilon_range(
            delta=delta, sigma=sigma, num_steps=bins, num_epochs=epochs, epsilon_accuracy=accuracy
        )
        print((sigma, bins, epochs, delta, round(lower, 5), round(upper, 5)))
