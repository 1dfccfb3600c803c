"""A server on loopback that answers with recordings, as the vendor did, and that can fail in the ways vendors do."""

from tests.replay.recordings import Question, Recording, Recordings, Reply, Service
from tests.replay.server import Fault, ReplayServer

__all__ = ["Fault", "Question", "Recording", "Recordings", "ReplayServer", "Reply", "Service"]
