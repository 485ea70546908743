"""The one exception for what a user can cause and mend: a bad file, key, URL or value."""


class UserError(Exception):
    """Its message is one line that names the thing, what was found and what to do; it is shown without a traceback."""
