"""OpenAI's weights in every format against a small re-implementation of OpenAI's own model, with random weights."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from clip_har import pretrained
from clip_har.backbone import Backbone, load_backbone
from clip_har.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit:FutureWarning")

EMBED, SIZE, CONTEXT, VOCABULARY = 24, 32, 12, 50


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:  # [L, B, W]
        mask = torch.full((len(x), len(x)), float("-inf")).triu(1) if self.causal else None
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, *, causal: bool) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, causal=causal) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 64, layers: int = 2, patch: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, causal=False)
        self.proj = nn.Parameter(torch.randn(width, EMBED))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x[:, 0]) @ self.proj  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(planes, planes * 4, 1, bias=False), nn.BatchNorm2d(planes * 4)
        self.downsample = (
            nn.Sequential(
                OrderedDict(
                    [
                        ("-1", nn.AvgPool2d(stride)),
                        ("0", nn.Conv2d(inside, planes * 4, 1, bias=False)),
                        ("1", nn.BatchNorm2d(planes * 4)),
                    ]
                )
            )
            if stride > 1 or inside != planes * 4
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(self.avgpool(out))) + self.downsample(x)).relu()  # type: ignore[no-any-return]


class AttentionPool(nn.Module):
    def __init__(self, side: int, width: int, heads: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.c_proj = nn.Linear(width, EMBED)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(0, 2, 1)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.positional_embedding
        batch, _, width = x.shape

        def split(values: Tensor) -> Tensor:
            return values.view(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        out = F.scaled_dot_product_attention(split(self.q_proj(x[:, :1])), split(self.k_proj(x)), split(self.v_proj(x)))
        return self.c_proj(out.transpose(1, 2).reshape(batch, width))  # type: ignore[no-any-return]


class ModifiedResNet(nn.Module):
    def __init__(self, width: int = 8, blocks: tuple[int, ...] = (1, 2, 1, 1)) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inside, stages = width, []
        for index, count in enumerate(blocks):
            planes = width * 2**index
            stage = [Bottleneck(inside, planes, 1 if index == 0 else 2)]
            inside = planes * 4
            stages.append(nn.Sequential(*stage, *(Bottleneck(inside, planes, 1) for _ in range(count - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(SIZE // 32, width * 32, width * 32 // 64)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu()
        x = F.avg_pool2d(x, 2)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))  # type: ignore[no-any-return]


class OpenAI(nn.Module):
    """OpenAI's CLIP with the layout of its archives: three numbers are buffers."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.transformer = Transformer(64, 2, causal=True)
        self.token_embedding = nn.Embedding(VOCABULARY, 64)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.randn(64, EMBED))
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        for name, value in (("input_resolution", SIZE), ("context_length", CONTEXT), ("vocab_size", VOCABULARY)):
            self.register_buffer(name, torch.tensor(value))

    def encode_text(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
        return x[torch.arange(len(x)), tokens.argmax(-1)] @ self.text_projection  # type: ignore[no-any-return]

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(images), self.encode_text(tokens)


CONFIGS = {
    "vit": {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 8},
    "resnet": {"image_size": SIZE, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
}


@pytest.fixture(params=["vit", "resnet"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind of image tower whose tiny architecture open_clip knows as tiny-KIND, and we by a historic name."""
    text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 2}
    kind = str(request.param)
    config = {"embed_dim": EMBED, "vision_cfg": CONFIGS[kind], "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"tiny-{kind}", json.loads(json.dumps(config)))
    monkeypatch.setitem(pretrained.HISTORIC_NAMES, f"tiny/{kind}", f"tiny-{kind}:openai")
    return kind


def original(kind: str, *, half: bool = False) -> OpenAI:
    torch.manual_seed(3)
    model = OpenAI(VisionTransformer() if kind == "vit" else ModifiedResNet()).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    if half:  # as in the archives: rounded to half precision, without a float16 forward pass
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return model


def save(model: OpenAI, path: Path, form: str, *, half: bool) -> str:
    """Write the weights; returns the --model that reads them. Form: script, state or safetensors."""
    images, tokens = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, CONTEXT, dtype=torch.long)
    if form == "script":
        traced = torch.jit.trace(model, (images, tokens), check_trace=False)
        (traced.half() if half else traced).save(str(path))
    else:
        state = {k: v.half() if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
        torch.save(state, path) if form == "state" else save_file(state, path)
    return str(path)


def assert_same(loaded: Backbone, expected: OpenAI) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(3, 3, SIZE, SIZE, generator=generator)
    tokens = torch.randint(0, VOCABULARY, (3, CONTEXT), generator=generator)
    model = loaded.model
    with torch.inference_mode():
        want_image, want_text = expected(images, tokens)
        got_image, got_text = model.encode_image(images), model.encode_text(tokens)  # type: ignore[operator]
    torch.testing.assert_close(F.normalize(got_image, dim=-1), F.normalize(want_image, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(got_text, dim=-1), F.normalize(want_text, dim=-1), atol=1e-5, rtol=0)
    assert loaded.info.preprocessing.image_size == (SIZE, SIZE)
    assert loaded.info.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert loaded.info.logit_scale == pytest.approx(torch.tensor(3.0).exp().item(), rel=1e-3)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("form", ["script", "state", "safetensors"])
def test_every_format_gives_the_original_embeddings(kind: str, form: str, half: bool, tmp_path: Path) -> None:
    model = original(kind, half=half)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    file = save(original(kind, half=half), path, form, half=half)
    for name in (file, f"tiny/{kind}:{file}", f"tiny-{kind}:{file}"):
        loaded = load_backbone(name, device="cpu", precision="float32")
        assert_same(loaded, model)
        assert loaded.notes == ()


def test_without_the_markers_a_historic_name_means_quick_gelu_and_others_are_noted(kind: str, tmp_path: Path) -> None:
    model = original(kind)
    path = tmp_path / "weights.pt"
    markers = ("input_resolution", "context_length", "vocab_size")
    torch.save({key: value for key, value in model.state_dict().items() if key not in markers}, path)
    loaded = load_backbone(f"tiny/{kind}:{path}", device="cpu", precision="float32")
    assert_same(loaded, model)
    assert "using QuickGELU" in loaded.notes[0]
    plain = load_backbone(f"tiny-{kind}:{path}", device="cpu", precision="float32")
    assert "using GELU" in plain.notes[0]
    assert f"pass tiny/{kind}:FILE" in plain.notes[0]
    alone = load_backbone(str(path), device="cpu", precision="float32")
    assert f"using tiny-{kind}, the only one with these shapes" in alone.notes[0]
    assert alone.notes[1:] == plain.notes


def test_weights_of_another_architecture_are_refused(kind: str, tmp_path: Path) -> None:
    file = save(original(kind), tmp_path / "weights.pt", "state", half=False)
    with pytest.raises(ModelError, match=r"another architecture than ViT-B-32: (ViT|ResNet) with .*--model /"):
        load_backbone(f"ViT-B/32:{file}")
    state = original(kind).state_dict()
    torch.save({"state_dict": {"visual.proj": state["logit_scale"]}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="do not fit its architecture"):
        load_backbone(f"tiny-{kind}:{tmp_path / 'other.pt'}")


def test_the_download_of_a_historic_name_may_be_the_original_archive(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(original(kind, half=True), tmp_path / "weights.pt", "script", half=True)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, f"tiny-{kind}", {"openai": {"url": "x"}})
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda _cfg: file)
    assert_same(load_backbone(f"tiny/{kind}", device="cpu", precision="float32"), original(kind, half=True))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00echoq\x00\x85R."])
def test_a_file_that_is_not_weights_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_backbone(str(tmp_path / "weights.pt"))
