"""What the service does becomes Prometheus metrics; of several replicas on a machine, any tells for all.

Replicas share the folder that PROMETHEUS_MULTIPROC_DIR names, which must be set before this is imported, is made where
it is missing, and must be this user's own. Without it, this process tells for itself.
"""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from kdray.storage import own_folder

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
if os.environ.get(FOLDER):
    own_folder(Path(os.environ[FOLDER]))

REQUESTS = Histogram("kdray_request_seconds", "Time from a request's first byte to its answer", ["route", "status"],
                     buckets=(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
BATCHES = Histogram("kdray_batch_size", "Inputs that a student answered together",
                    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
QUEUE = Gauge("kdray_queue_inputs", "Inputs that wait for a student", multiprocess_mode="livesum")
REFUSED = Counter("kdray_refused_requests", "Requests that found the queue full, not among those above")
LABELS = Counter("kdray_labels", "Labels that a student gave", ["student", "label"])
CONFIDENCE = Histogram("kdray_confidence", "Probability of a student's least sure label in an input", ["student"],
                       buckets=(.5, .6, .7, .8, .9, .95, .98, .99, .999, 1))
TEACHER = Counter("kdray_teacher_inputs", "Inputs that the teacher was asked about, and how that ended",
                  ["why", "outcome"])


def exposition() -> bytes:
    """All metrics as Prometheus reads them."""
    if not os.environ.get(FOLDER):
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
