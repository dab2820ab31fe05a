"""Imported by the process that children are forked from: everything that they would import first, and a tie to the
worker. The kernel ends that process with the worker, and its children with it."""

import ctypes
import gc
import signal

from dissect.process import tune

tune()

from dissect import models, pipeline, publish, shards, store  # noqa: E402

__all__ = ["models", "pipeline", "publish", "shards", "store"]

gc.freeze()  # children share what is there now
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
