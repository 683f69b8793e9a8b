"""How far are our numbers from the released code's? `python tests/parity/table.py` prints the largest difference of each kind."""

from collections.abc import Iterator

import numpy as np
import torch
from golden import (
    ARRAYS,
    GOLDEN,
    LOSS,
    SMALL,
    STARTS,
    cosine,
    difference,
    from_diffusers,
    loss_inputs,
    perceptual,
    picture_codec,
    picture_weights,
    radar_weights,
    tiny_backbone,
    tiny_beta,
    tiny_codec,
    wave,
)

from copgen import diffusion, published
from copgen.modalities import TABLE, THUMBNAILS
from copgen.training.adversarial import hinge
from copgen.training.codec_loss import codec_loss
from copgen.training.recipe import CodecTraining

Row = tuple[str, float]


def backbones() -> Iterator[Row]:
    network, latents, times = tiny_backbone()
    out = network(latents, times)
    golden = GOLDEN["backbone_tiny"]["outputs"]
    yield "backbone, 12 modalities, float32", max(difference(out[row], golden[published.KEYS[row]]) for row in out)
    names = SMALL.names
    latents = {name: wave((2, 4, 8, 8), 0.013 * (i + 1)) for i, name in enumerate(names)}
    times = {name: torch.full((2,), time) for name, time in zip(names, (0.0, 500.5, 1000.0, 20.98), strict=True)}
    out = tiny_beta()(latents, times)
    yield "COP-GEN-Beta: backbone, 4 thumbnails, float32", largest(np.stack([out[name] for name in names]), ARRAYS["beta_tiny_out_f32"])


def codecs() -> Iterator[Row]:
    golden = GOLDEN["vae_tiny"]
    yield "VAE moments, width 32, float32", difference(tiny_codec().moments(cosine((2, 3, 32, 32), 0.07)), golden["moments"])
    yield "VAE decode, width 32, float32", difference(tiny_codec().decode(cosine((2, 8, 4, 4), 0.3)), golden["decoded"])
    for dtype in (torch.float64, torch.float32):
        codec = published.codec(radar_weights(), "s1rtc", scaling_factor=0.5).to(dtype)
        name = str(dtype).removeprefix("torch.")
        yield f"VAE moments, full size, {name}", largest(codec.moments(wave((1, 2, 64, 64), 0.013, dtype=dtype)), ARRAYS["vae_moments_f64"])
        yield f"VAE decode, full size, {name}", largest(codec.decode(wave((1, 8, 8, 8), 0.05, dtype=dtype)), ARRAYS["vae_decode_f64"])


def pictures() -> Iterator[Row]:
    """COP-GEN-Beta's VAE, against diffusers' own network of the same weights."""
    _, made = picture_codec(picture_weights())
    yield "COP-GEN-Beta: VAE, float64 (12 digits are known)", from_diffusers(made)
    scale, levels = THUMBNAILS["dem_thumbnail"].scale, np.arange(256, dtype=np.uint8)
    yield "COP-GEN-Beta: 8 bits, to the model", largest(scale.to_model(levels), levels / 127.5 - 1)
    yield "COP-GEN-Beta: 8 bits, there and back", largest(scale.to_physical(scale.to_model(levels)), levels)


def solvers() -> Iterator[Row]:
    schedule = diffusion.SCHEDULE
    ours = {n: dict(zip(("alpha", "sigma", "lam"), (*schedule.alpha_sigma(int(n)), schedule.lam(int(n))), strict=True))
            for n in GOLDEN["schedule"]}
    for quantity in ("alpha", "sigma", "lam"):
        yield f"schedule, {quantity}", max(abs(ours[n][quantity] - golden[quantity]) for n, golden in GOLDEN["schedule"].items())
    for steps, golden in GOLDEN["solver"]["runs"].items():
        times: list[float] = []

        def backbone(latents: dict, t: dict, times: list[float] = times) -> dict:
            times.append(t["x"][0].item() / 1000)
            return {"x": 0.3 * latents["x"] + 0.2 * torch.sin(6 * t["x"][:, None] / 1000)}

        x = diffusion.sample(backbone, {"x": torch.tensor(golden["x_T"]).reshape(2, 5)}, {}, solver="published", steps=int(steps))["x"]
        yield f"solver, {steps} calls (values up to {np.abs(golden['result']).max():.1f})", largest(x.flatten(), np.array(golden["result"]))
        yield f"solver, {steps} calls, call times", largest(np.array(times), np.array(golden["times"]))
    first, *rest = SMALL.names
    noise = {name: 1.4 * wave((2, 256), 0.31 * (i + 1)).reshape(2, 4, 8, 8) for i, name in enumerate(rest)}
    drawn = diffusion.sample(tiny_beta(), noise, {first: wave((2, 4, 8, 8), 0.013)}, solver="published", steps=50)
    flat = torch.cat([drawn[name].flatten(1) for name in rest], dim=1)
    yield "COP-GEN-Beta: 3 thumbnails, 50 calls (up to 36)", largest(flat, ARRAYS["beta_tiny_joint_sample_f32"])


def units() -> Iterator[Row]:
    for key, row in (("S1RTC_vh_vv", "s1rtc"), ("DEM_DEM", "dem"), ("S2L2A_B02_B03_B04_B08", "s2l2a_10m")):
        golden, scale = GOLDEN["pre_post"][key], TABLE[row].scale
        yield f"{row}, to the model", largest(scale.to_model(np.array(golden["raw"], np.float32)), np.array(golden["pre"]))
        back, post = scale.to_physical(np.array(golden["pre"], np.float32)), np.array(golden["post"])
        yield f"{row}, to physical units, relative", float((np.abs(back - post) / np.maximum(np.abs(post), 1e-6)).max())
    dates = GOLDEN["pre_post"]["dates"].items()
    yield "dates, to the model", max(largest(TABLE["date"].scale.to_model(np.array([day], "datetime64[D]")).ravel(), np.array(vector))
                                     for day, vector in dates)
    places = GOLDEN["pre_post"]["latlon"].items()
    yield "places, to the model", max(largest(TABLE["place"].scale.to_model(np.array(text.split(","), float)).ravel(), np.array(vector))
                                      for text, vector in places)


def losses() -> Iterator[Row]:
    with torch.enable_grad():                    # one term is weighted by gradients
        given = loss_inputs()
        after, parts = codec_loss(**given, how=CodecTraining(adversarial_from=STARTS), step=STARTS, generator=torch.Generator())
    yield "VAE loss, relative, float64", abs(after.item() / LOSS["total after"] - 1)
    yield "VAE loss, adaptive weight, relative, float64", abs(parts["adversarial_weight"].item() / LOSS["weight"] - 1)
    judge = given["discriminator"]
    yield "discriminator's loss, float64", abs(hinge(judge(given["x"]), judge(given["y"])).item() - LOSS["hinge"])
    network, channels = perceptual(), (1, 2, 3, 4, 6, 10)
    waves = {n: [wave((2, n, 32, 32), frequency, dtype=torch.float64) for frequency in (0.013, 0.017)] for n in channels}
    yield "LPIPS, 1 to 10 channels, float64", max(largest(network(*waves[n]), ARRAYS[f"lpips_n{n}"]) for n in channels)


def largest(ours: object, golden: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours, np.float64) - golden).max())


def main() -> None:
    with torch.no_grad():
        print(f"{'what':52} largest difference")
        for what, value in [*backbones(), *codecs(), *pictures(), *solvers(), *units(), *losses()]:
            print(f"{what:52} {value:.1e}")


if __name__ == "__main__":
    main()
