"""Loaded once by the process that workers are forked from."""

import signal

import deploy.serving.workers.worker  # noqa: F401

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to every process of a service: workers end themselves
