"""Imported by the process that children are forked from: everything that they would import first, and a tie to the
worker. The kernel ends that process with the worker, and its children with it."""

import ctypes
import signal

from dissect import models, pipeline, publish, shards, store

__all__ = ["models", "pipeline", "publish", "shards", "store"]

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
