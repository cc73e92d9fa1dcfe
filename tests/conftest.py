"""Settings of every test: no hub, and Ray without tokens."""

import os

os.environ.update(HF_HUB_OFFLINE="1", RAY_AUTH_MODE="disabled", TOKENIZERS_PARALLELISM="false")
