"""What the tests find of this machine, so that none depends on it: a plugin of pytest.

Its terminal, its logins and its caches are hidden. Its processor, which `--precision auto` asks about bfloat16, answers
as --hardware-bfloat16 has it; with --only-asked, only the tests run that asked in the last run. Processes that tests
start see the real processor, so those commands give a --precision.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import settings

QUESTION = "_cpu_multiplies_bfloat16"
"""The function of `backbone` that asks the processor."""
AMX = "_cpu_has_amx"
"""The one that asks whether training in bfloat16 is faster."""
ASKED = "clip-har/asked-the-processor"
"""Property of a test's report, and name of the list in pytest's cache: node ids of tests, or files."""
PROXIES = tuple(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL"))
HIDDEN = (
    *("LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("HF_TOKEN", "WANDB_API_KEY", "WANDB_MODE", "XDG_STATE_HOME"),
    *PROXIES,
    *map(str.lower, PROXIES),
)
"""Variables of a user's shell that change what is printed, log in somewhere, or stand before the tests' own servers."""

LONGEST = (
    *("test_docs_commands.py", "test_kill_and_resume.py", "test_export.py", "test_sweep.py", "test_families.py"),
    *("test_notebooks.py", "report/test_report_files.py", "test_prediction_file.py", "test_package.py"),
    *("test_damage.py", "test_training_options.py", "test_distributed.py", "test_embed_kills.py"),
    *("web_page/test_page.py", "report/test_report_browser.py", "test_tower_lora.py", "test_towers.py"),
)
"""Files of tests that take longest, the longest first."""

asking: set[str] = set()
"""The test that runs now, if it has asked; and its file, if a fixture has that the file's tests share."""
running = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clip-har")
    group.addoption(
        "--hardware-bfloat16",
        choices=("yes", "no"),
        default="no",
        help="whether tests find a processor that multiplies bfloat16, which --precision auto then picks",
    )
    group.addoption("--only-asked", action="store_true", help="run only the tests that asked that in the last run")


def pytest_configure(config: pytest.Config) -> None:
    """Before any fixture, whatever its scope, and in every process of pytest-xdist."""
    settings.register_profile("clip-har", deadline=None, derandomize=True)
    settings.load_profile("clip-har")
    _hide_the_user(config)
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":  # else only others run tests
        _answer(multiplies=config.getoption("--hardware-bfloat16") == "yes")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(config))


def _hide_the_user(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in HIDDEN:
        patch.delenv(name, raising=False)
    patch.setenv("COLUMNS", "80")
    home = Path(tempfile.mkdtemp(prefix="clip-har-home-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    patch.setenv("HF_HOME", str(home / "huggingface"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "huggingface" / "hub"))  # read at import
    patch.setattr(constants, "HF_HUB_OFFLINE", True)


def _answer(*, multiplies: bool) -> None:
    def answer() -> bool:
        asking.add(running)
        return multiplies

    from clip_har import backbone

    setattr(backbone, QUESTION, answer)
    setattr(backbone, AMX, bool)  # False: tests of training by bfloat16 autocast ask for it


def pytest_runtest_logstart(nodeid: str) -> None:
    global running
    running = nodeid


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
    """What a module's fixture asks while its first test is set up, all tests of the file have asked."""
    global running
    nodeid = running
    if fixturedef.scope != "function":
        running = _file_of(nodeid)
    try:
        return (yield)
    finally:
        running = nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    item.user_properties.extend((ASKED, nodeid) for nodeid in sorted(asking))
    asking.clear()
    return (yield)


def pytest_collection() -> None:
    """Spares the garbage collector the millions of objects that torch and its company make now and keep to the end."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files come first and then those with slow tests, so that no process is left alone at the end."""
    slow = {_file_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    turns = {f"tests/{name}": turn for turn, name in enumerate(LONGEST)}
    if lost := [name for name in turns if not (config.rootpath / name).is_file()]:
        raise pytest.UsageError(f"LONGEST of tests/machine.py lists files that do not exist: {', '.join(lost)}")
    last = len(turns)
    items.sort(key=lambda item: turns.get(_file_of(item.nodeid), last + (_file_of(item.nodeid) not in slow)))
    asked = _asked_last(config)
    if asked is not None:
        items[:] = [item for item in items if {item.nodeid, _file_of(item.nodeid)} & asked]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spares the import of files in which no test asked."""
    asked = _asked_last(config)
    if asked is None or not collection_path.is_file():
        return None
    return collection_path.relative_to(config.rootpath).as_posix() not in set(map(_file_of, asked)) or None


def _asked_last(config: pytest.Config) -> set[str] | None:
    """What --only-asked runs; None, without it or where no last run is known, is everything."""
    if not config.getoption("--only-asked") or not config.pluginmanager.hasplugin("cacheprovider"):
        return None
    asked = config.cache.get(ASKED, None) if config.cache else None
    return None if asked is None else set(asked)


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Record:
    """Collects the reports of all processes, and keeps for --only-asked what asked."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.asked: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.asked |= {str(value) for name, value in report.user_properties if name == ASKED}

    def pytest_sessionfinish(self) -> None:
        if self.config.getoption("--only-asked") or not self.config.pluginmanager.hasplugin("cacheprovider"):
            return
        if self.config.cache:
            self.config.cache.set(ASKED, sorted(self.asked))
