"""One file for each command: what a user types, and nothing else. What commands share is in experiment/.

Nothing here prints; progress goes to a `progress.Progress`, results are returned and written to files.
"""

from clip_har.commands.compare import Comparison, compare
from clip_har.commands.evaluate import evaluate
from clip_har.commands.explain import explain
from clip_har.commands.export import Exported, export
from clip_har.commands.fetch import Fetched, fetch
from clip_har.commands.import_checkpoint import import_checkpoint, import_folder
from clip_har.commands.prompts import try_prompts
from clip_har.commands.quickstart import quickstart
from clip_har.commands.split import Splitting, split, verify_manifest
from clip_har.commands.sweep import sweep
from clip_har.commands.train import train

__all__ = [
    "Comparison",
    "Exported",
    "Fetched",
    "Splitting",
    "compare",
    "evaluate",
    "explain",
    "export",
    "fetch",
    "import_checkpoint",
    "import_folder",
    "quickstart",
    "split",
    "sweep",
    "train",
    "try_prompts",
    "verify_manifest",
]
