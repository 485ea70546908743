# The demo in a container:  docker build -t dprobust . && docker run --rm -v dprobust:/home/lab/dprobust/results dprobust
# With CUDA: --build-arg TORCH=pypi. This file is linted, no test builds it.
FROM python:3.13-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 lab \
    && install --directory --owner=lab --group=lab /home/lab/dprobust /home/lab/dprobust/results /home/lab/dprobust/data

USER 1000
WORKDIR /home/lab/dprobust
ENV PIP_NO_CACHE_DIR=1

# First what the environment is made of: a change of the rest does not install it again.
COPY --chown=lab:lab Makefile requirements.lock ./
COPY --chown=lab:lab tools/setup.py tools/
ARG TORCH=cpu
RUN make setup PYTHON=python3.13 TORCH="$TORCH"

COPY --chown=lab:lab . .
CMD ["make", "demo"]
