"""Untrained networks whose nuclei make sense: about as many points as tissue has, with small masks around them.

With random weights a mask is the whole image or nothing, which tests neither edges nor neighbours. Here a few
directions of the random decoder are set by hand: image tokens look at the points near them (the position encoding
is a kernel about 20 px wide), take a positive number from positive points and a negative one from negative points,
and the mask is where that number is high. Everything else stays random, so masks and predicted IoU vary with image
and window.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.models.nets import random_batch, stir
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.sam.decoder import decode, embed_points, full_logits
from wsi_nuc.models.sam.model import Sam, encode
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.types import UInt8

MASK_SHARE = 0.015  # of a window: 31 x 31 px
SIGN = slice(64, 128, 4)  # channels that carry a point's sign; no head compares places by them
QUIET = 0.3  # factor of the random weights, beside positions and what is set by hand


@torch.no_grad()
def sensible_net(settings: Settings, foreground: float = 0.1, rgb: UInt8 | None = None) -> PromptNucSegNet:
    """`foreground`: share of the anchors that propose a point, before doubles are suppressed, on `rgb` (H x W x 3,
    sides a multiple of 256; None: noise)."""
    torch.manual_seed(0)
    net = PromptNucSegNet(settings)
    stir(net.prompter)
    stir(net.segmentor, scale=0.1)
    pixels = torch.from_numpy(random_batch(1, 256, seed=1).rgb if rgb is None else rgb[None])
    _calibrate_points(net, pixels, foreground)
    _make_local(net.segmentor)
    _calibrate_masks(net.segmentor, pixels[:, :256, :256])
    return net.eval().requires_grad_(False)


def _calibrate_points(net: PromptNucSegNet, rgb: torch.Tensor, foreground: float) -> None:
    prompter: Any = net.prompter
    for head in (prompter.deform_layer, prompter.reg_head):
        head.layers[3].weight.mul_(0.5)
        head.layers[3].bias.zero_()
    logits = prompter(normalise(rgb), (rgb.shape[1], rgb.shape[2])).logits
    margin = logits[..., :-1].amax(-1) - logits[..., -1]
    prompter.cls_head.layers[3].bias[-1] += margin.quantile(1 - foreground)


def _make_local(sam: Sam) -> None:
    decoder: Any = sam.mask_decoder
    encoder: Any = sam.image_encoder
    points: Any = sam.prompt_encoder
    first, second = decoder.transformer.layers
    encoder.neck[3].weight.mul_(QUIET / 2)
    for layer in (first, second):
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.weight.mul_(QUIET)
            norm.bias.mul_(QUIET)
    first.norm4.weight.mul_(0.5)
    for table in (decoder.iou_token, decoder.mask_tokens, points.not_a_point_embed):
        table.weight.mul_(QUIET)
    sign = torch.zeros(256)
    sign[SIGN] = 3.0
    for kind, value in enumerate((0.1 * sign, sign)):
        points.point_embeddings[kind].weight.copy_(value[None])
    _keep_each_token_itself(first.self_attn)
    _look_at_near_points(second.cross_attn_image_to_token, sign)
    _read_out(decoder, sign)


def _keep_each_token_itself(attention: Any) -> None:
    for projection, gain in ((attention.q_proj, 1.5), (attention.k_proj, 1.5), (attention.v_proj, 1.0)):
        projection.weight.copy_(torch.eye(256) * gain)
    attention.out_proj.weight.copy_(torch.eye(256))


def _look_at_near_points(attention: Any, sign: torch.Tensor) -> None:
    """Each of the eight heads compares eight frequencies of the position encoding, sine and cosine."""
    pick = torch.zeros(128, 256)
    for head in range(8):
        for i in range(8):
            pick[head * 16 + 2 * i, head * 8 + i] = 2.0
            pick[head * 16 + 2 * i + 1, 128 + head * 8 + i] = 2.0
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.copy_(pick)
        projection.bias.zero_()
    attention.v_proj.weight.mul_(QUIET)
    attention.v_proj.weight[::16] = sign / sign.norm()
    attention.out_proj.weight.mul_(QUIET)
    attention.out_proj.weight[SIGN, ::16] += 0.06


def _read_out(decoder: Any, sign: torch.Tensor) -> None:
    """Channel 0 of the upscaled image is high where the sign is high; channel 1 is the number 1."""
    up = decoder.output_upscaling
    for stage in (up[0], up[3]):  # the four parts of a token differ little
        stage.weight.mul_(QUIET).add_(stage.weight.mean((2, 3), keepdim=True) * 2)
    up[0].weight[:, 0] = 0.2 * (sign / sign.norm())[:, None, None]
    up[3].weight[:, :2] *= 0.1
    up[3].weight[0, 0] = 2.0
    up[3].weight[:, 1], up[3].bias[1] = 0.0, 1.4  # about 1.3 after the GELU
    last = decoder.output_hypernetworks_mlps[0].layers[2]
    last.weight.mul_(0.02)
    last.bias.mul_(0.05)
    last.bias[0] = 1.0


def _calibrate_masks(sam: Sam, rgb: torch.Tensor) -> None:
    decoder: Any = sam.mask_decoder
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(1, 24, 1, 2, generator=generator) * 224 + 16
    tokens = embed_points(sam.prompt_encoder, xy, torch.ones(1, 24, 1))
    decoded = decode(sam, encode(sam.image_encoder, normalise(rgb)), tokens)
    image, filters = decoded.image.flatten(0, 1), decoded.filters.flatten(0, 1)
    logits = full_logits(decoder, image, filters)
    unit = torch.nn.functional.gelu(torch.tensor(1.4))
    decoder.output_hypernetworks_mlps[0].layers[2].bias[1] -= logits.quantile(1 - MASK_SHARE) / unit
    head = decoder.iou_prediction_head.layers[2]
    head.bias[0] += 0.8 - decoded.predicted_iou.mean()
