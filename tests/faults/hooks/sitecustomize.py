"""Python loads this when it starts, where tests put the folder on PYTHONPATH: misfortune at a chosen moment."""

import os
import pathlib
import signal

if folder := os.environ.get("FAULTS_KILL"):
    # A folder with a file a moment, "before FOLDER:NAME" or "after FOLDER:NAME" that a file takes its place. The whole
    # run is killed at each once.
    moments, replace = pathlib.Path(folder), pathlib.Path.replace

    def strike(when, target):
        try:
            (moments / f"{when} {target.parent.name}:{target.name}").unlink()
        except FileNotFoundError:
            return
        os.killpg(0, signal.SIGKILL)

    def replace_or_die(self, target):
        strike("before", pathlib.Path(target))
        done = replace(self, target)
        strike("after", pathlib.Path(target))
        return done

    pathlib.Path.replace = replace_or_die

if os.environ.get("FAULTS_NO_FLOCK"):
    # A file system that has none.
    import errno
    import fcntl

    def no_flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    fcntl.flock = no_flock
