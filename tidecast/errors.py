"""Every error that Tidecast raises on purpose, and what the command line ends with for each (sysexits).

    TidecastError            70  the base: never raised itself
      ConfigError            78  a setting that cannot be
        TrainingConfigError  65  one of a training: of its network, its length, its model's name
      DataError              65  data that can't be used
        TooShort             65  data that is too short to train on
      ShapeError             65  arrays, or a file and its card, that do not fit each other
      InvalidEvent           65  a record that is no event; lives in pipeline.formats.dead_letters, with its reasons
      LogError               69  the log refused
        LogUnavailable       75  no answer in time, or a retriable failure: try again
        UnknownTopic         78  the topic does not exist
        ConsumerFenced       75  another consumer owns the partitions now: stop, send nothing
        NotAuthorized        77  authentication or authorisation failed
      StateError             78  a service's state that it can't go on from
        CorruptState         65  bytes that are not those that were written
        StateMismatch        78  state and group, topic or windows do not belong together
      RegistryError          78  a model can't be recorded or had
        RegistryUnavailable  75  no server or store there, or it does not answer as one
        UnknownModel         78  no such name, version or alias
        PromotionConflict    78  another version became champion while this one was judged
        CorruptModel         65  a version whose file is missing, or is not the one that was registered
      UnsafeModel            65  a model file that holds what none of ours needs
      ParityError            65  an exported model that does not compute what the trained one does
      ModelRejected          65  a model that must not serve
      ModelUnavailable       75  a model can't be read, tried or used now: try again
      RetrainingBusy         75  another retraining of the same model is at work
      NotPermitted           77  a file or folder that may not be read or written, a port that may not be used
      AddressInUse           71  another process listens there

ConfigError, DataError and ShapeError are ValueErrors too. Any other error that leaves a command is a bug.
"""

import errno
import os
from typing import ClassVar

FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The numbers of an OSError for want of a permission."""


class TidecastError(Exception):
    """Whatever Tidecast raises on purpose; the message is one line for people."""

    exit_code: ClassVar[int] = os.EX_SOFTWARE
    """What a command that fails with it ends with."""


class ConfigError(TidecastError, ValueError):
    """A setting that cannot be; the message names it."""

    exit_code = os.EX_CONFIG


class TrainingConfigError(ConfigError):
    """A training's setting that cannot be: of its network, its length, the name of its model; the message names it."""

    exit_code = os.EX_DATAERR


class DataError(TidecastError, ValueError):
    """Data that can't be used: a file, a frame, a history, a text; the message says where and why."""

    exit_code = os.EX_DATAERR


class ShapeError(TidecastError, ValueError):
    """Arrays, or a file and its card, whose shapes do not fit each other."""

    exit_code = os.EX_DATAERR


class LogError(TidecastError):
    """The log refused or could not do what was asked."""

    exit_code = os.EX_UNAVAILABLE


class LogUnavailable(LogError):
    """The log did not answer in time; the same call may work later."""

    exit_code = os.EX_TEMPFAIL


class UnknownTopic(LogError):
    """The topic does not exist."""

    exit_code = os.EX_CONFIG


class ConsumerFenced(LogError):
    """This consumer, or this transactional id, has been replaced by another."""

    exit_code = os.EX_TEMPFAIL


class NotAuthorized(LogError):
    """Authentication or authorisation failed."""

    exit_code = os.EX_NOPERM


class TooShort(DataError):
    """Data that is too short to train on."""

    exit_code = os.EX_DATAERR


class StateError(TidecastError):
    """A service's state that it can't go on from."""

    exit_code = os.EX_CONFIG


class CorruptState(StateError):
    """A state record whose bytes are not those that were written."""

    exit_code = os.EX_DATAERR


class StateMismatch(StateError):
    """State and group, topic or windows do not belong together; the message says what to do."""

    exit_code = os.EX_CONFIG


class RegistryError(TidecastError):
    """Anything that keeps a model from being recorded or had."""

    exit_code = os.EX_CONFIG


class RegistryUnavailable(RegistryError):
    """The registry can't be reached, or is none."""

    exit_code = os.EX_TEMPFAIL


class UnknownModel(RegistryError):
    """The registry has no such name, version or alias."""

    exit_code = os.EX_CONFIG


class PromotionConflict(RegistryError):
    """Another version became champion meanwhile."""

    exit_code = os.EX_CONFIG


class CorruptModel(RegistryError):
    """The version's file is not what was registered."""

    exit_code = os.EX_DATAERR


class UnsafeModel(TidecastError):
    """A model file that holds what none of ours needs."""

    exit_code = os.EX_DATAERR


class ParityError(TidecastError):
    """An exported model whose outputs are not those of the one that was trained."""

    exit_code = os.EX_DATAERR


class ModelRejected(TidecastError):
    """A model that must not serve; the message says why."""

    exit_code = os.EX_DATAERR


class ModelUnavailable(TidecastError):
    """A model can't be read, tried or used now, through no fault of its own; later it may work."""

    exit_code = os.EX_TEMPFAIL


class RetrainingBusy(TidecastError):
    """Another retraining of the same model is at work."""

    exit_code = os.EX_TEMPFAIL


class NotPermitted(TidecastError):
    """A file, folder or port that this user may not use; the message names it."""

    exit_code = os.EX_NOPERM


class AddressInUse(TidecastError):
    """A host and port that another process listens at; the message names them."""

    exit_code = os.EX_OSERR


def unusable(path: object, error: OSError, otherwise: type[TidecastError]) -> TidecastError:
    """What to raise for a file that can't be read or written: NotPermitted for want of a permission, or `otherwise`."""
    kind = NotPermitted if error.errno in FORBIDDEN else otherwise
    return kind(f"{path}: {error.strerror or error}")
