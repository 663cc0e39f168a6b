"""Two processes over gloo train as one with twice the batch, share the encoding, and the first writes the files."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clip_har.losses import infonce, supcon
from forked import Server, as_launched

pytestmark = pytest.mark.slow  # three methods trained twice, and processes that import torch

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
SHARED = (
    "--methods=lora,full,linear-probe",
    "--epochs=2",
    "--dropout=0",
    "--augment=none",
    "--no-text-augment",
    "--lr=1e-3",
    "--warmup-epochs=0",
    "--workers=0",
    "--device=cpu",
    "--precision=float32",
)


@pytest.fixture(name="folders", scope="module")
def fixture_folders(
    server: Server, photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same comparison by one process, and by two with half the batch each."""
    folder = tmp_path_factory.mktemp("distributed")
    flags = ["compare", f"--data={photos}", f"--model={tiny_model}", *SHARED]
    alone = [*flags, "--batch-size=8", f"--out={folder / 'one'}", f"--cache={folder / 'cache-1'}"]
    (done,) = server.run(alone, log=folder / "log")
    assert done["code"] == 0, (folder / "log.0").read_text()
    both = [[*flags, "--batch-size=4", f"--out={folder / 'two'}"]] * 2
    answers = server.run(*both, log=folder / "log", together=True, cache=folder / "cache-2")
    assert [answer["code"] for answer in answers] == [0, 0], (folder / "log.0").read_text()
    return {"one": folder / "one", "two": folder / "two"}


def card(folder: Path, method: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "runs" / method / "card.json").read_text())
    return content


@pytest.mark.parametrize("method", ["lora", "full", "linear-probe"])
def test_two_processes_reach_what_one_with_twice_the_batch_does(folders: dict[str, Path], method: str) -> None:
    one, two = (card(folders[name], method) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["validation"]["val_loss"] == pytest.approx(one["validation"]["val_loss"], rel=1e-3)
    assert two["validation"]["val_accuracy"] == one["validation"]["val_accuracy"]
    file = "adapter_model.safetensors" if method == "lora" else "classifier.safetensors"
    trained = {name: load_file(folders[name] / "runs" / method / file) for name in ("one", "two")}
    for key, tensor in trained["one"].items():
        torch.testing.assert_close(trained["two"][key], tensor, rtol=2e-2, atol=2e-3, msg=key)


def test_the_losses_of_every_epoch_agree(folders: dict[str, Path]) -> None:
    logs = [(folders[name] / "runs" / "full" / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[json.loads(line)["train_loss"] for line in lines] for lines in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_each_image_is_scored_once(folders: dict[str, Path]) -> None:
    tables = [(folders[name] / "runs" / "full" / "eval" / "predictions.csv").read_text() for name in ("one", "two")]
    rows = [[line.split(",")[0] for line in table.splitlines()] for table in tables]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(set(rows[0])) == 19  # the header and 18 images


def test_sharded_training_reaches_the_same(
    server: Server, folders: dict[str, Path], photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    """FSDP: the same steps with the weights spread over two processes, killed half-way and continued."""
    out = folders["one"].parent / "sharded"
    given = (f"--data={photos}", f"--model={tiny_model}", f"--out={out}", f"--cache={out.with_name('cache-2')}")
    command = ["train", *given, "--method=full", "--fsdp", *SHARED[1:], "--batch-size=4"]
    for flags in ([], ["--resume"]):
        answers = server.run(*[[*command, *flags]] * 2, log=tmp_path / "log", together=True)
        assert [answer["code"] for answer in answers] == [0, 0], (tmp_path / "log.0").read_text()
        if not flags:
            (out / "card.json").unlink()
            newest = sorted((out / "last").glob("step-*"))[-1]
            newest.unlink()  # as if it had been killed after the first epoch
    trained = load_file(out / "classifier.safetensors")
    for key, tensor in load_file(folders["two"] / "runs" / "full" / "classifier.safetensors").items():
        torch.testing.assert_close(trained[key], tensor, rtol=2e-2, atol=2e-3, msg=key)


GATHERED = """
import json, os, sys, torch, torch.distributed as dist
from clip_har.losses import infonce, supcon
from clip_har.methods import Batch
from clip_har.methods.caption_loss import caption_loss, parts_of_step
dist.init_process_group("gloo")
rank = dist.get_rank()
with open(f"{sys.argv[1]}.{rank}.json", "w") as stream:
    json.dump(dict(os.environ), stream)
data = torch.load(sys.argv[1], weights_only=True)
rows = slice(rank * 6, rank * 6 + 6)
scale = data["scale"].requires_grad_()
image, caption = data["image"].requires_grad_(), data["caption"].requires_grad_()
weights = data["weights"][rows] * 2  # gradients are averaged over the two
passes = [slice(start, start + 3) for start in (0, 3)]
batches = [Batch(inputs=image[rows][p], labels_B=data["labels"][rows][p], weights_B=weights[p]) for p in passes]
constant = [torch.cat([image[rows][p], caption[rows][p]], dim=1).detach() for p in passes]
def in_one_pass(name):
    loss = {"supcon": supcon, "infonce": infonce}[name]
    loss(image[rows], caption[rows], data["labels"][rows], scale, weights).backward()
def in_two_passes(name):
    for p, batch in zip(passes, parts_of_step(batches, constant)):
        caption_loss(name.split()[0], image[rows][p], caption[rows][p], scale, batch).backward()
for name in ("supcon", "infonce", "supcon in two passes", "infonce in two passes"):
    for tensor in (image, caption, scale):
        tensor.grad = None
    (in_two_passes if "passes" in name else in_one_pass)(name)
    for tensor in (image, caption, scale):
        dist.all_reduce(tensor.grad)
        tensor.grad /= 2
    if rank == 0:
        torch.save([image.grad, caption.grad, scale.grad], f"{sys.argv[1]}.{name}")
dist.barrier()
dist.destroy_process_group()
"""


def test_gathered_contrastive_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    image, caption = torch.randn(2, 12, 5, generator=generator).unbind()
    labels = torch.randint(3, (12,), generator=generator)
    weights = torch.full((12,), 1 / 11)
    weights[-1] = 0.0  # the last only fills the batch
    content = {"image": image, "caption": caption, "labels": labels, "scale": torch.tensor(4.0), "weights": weights}
    torch.save(content, tmp_path / "data")
    script = tmp_path / "gathered.py"
    script.write_text(GATHERED)
    command = [*LAUNCH, str(script), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):  # so that what the other tests start is as torchrun starts it
        launched = json.loads((tmp_path / f"data.{rank}.json").read_text())
        own = as_launched(rank, 2, int(launched["MASTER_PORT"]))
        assert own == {name: launched[name] for name in own} | {"MASTER_ADDR": own["MASTER_ADDR"]}
    for passes, loss in itertools.product(("", " in two passes"), (supcon, infonce)):
        whole = [content[key].clone()[:11].requires_grad_() for key in ("image", "caption")]
        scale = torch.tensor(4.0, requires_grad=True)
        loss(whole[0], whole[1], labels[:11], scale).backward()
        for_image, for_caption, for_scale = torch.load(tmp_path / f"data.{loss.__name__}{passes}", weights_only=True)
        torch.testing.assert_close(for_image[:11], whole[0].grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(for_caption[:11], whole[1].grad, rtol=1e-4, atol=1e-6)
        assert not for_image[11].any()
        assert for_scale.item() == pytest.approx(scale.grad.item(), rel=1e-4)  # type: ignore[union-attr]
