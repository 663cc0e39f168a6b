"""train, evaluate, compare, quickstart, split, fetch, import: the only place that ties the other modules together.

Nothing here prints; progress goes to a `progress.Progress`, results are returned and written to files.
"""

from clip_har.workflows.comparing import Comparison, compare, quickstart
from clip_har.workflows.evaluating import evaluate
from clip_har.workflows.explaining import ExplainConfig, explain
from clip_har.workflows.fetching import Fetched, fetch
from clip_har.workflows.importing import ImportConfig, import_checkpoint, import_folder
from clip_har.workflows.prepare import Prepared, prepare
from clip_har.workflows.prompting import try_prompts
from clip_har.workflows.splitting import SplitConfig, Splitting, split, verify_manifest
from clip_har.workflows.training import train

__all__ = [
    "Comparison",
    "ExplainConfig",
    "Fetched",
    "ImportConfig",
    "Prepared",
    "SplitConfig",
    "Splitting",
    "compare",
    "evaluate",
    "explain",
    "fetch",
    "import_checkpoint",
    "import_folder",
    "prepare",
    "quickstart",
    "split",
    "train",
    "try_prompts",
    "verify_manifest",
]
