"""The job behind `wgan-lip certify`."""

from __future__ import annotations

from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.schema import RUN, checked, run_named
from wgan_lip.lipschitz.certificates import Certificate, verify
from wgan_lip.lipschitz.certificates import certify as certify_critic
from wgan_lip.lipschitz.witness import save_witness
from wgan_lip.runs.folder import CERTIFICATE
from wgan_lip.runs.run import load_run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.terminal import say

__all__ = ["certify"]


def certify(config: DictConfig) -> None:
    """Certifies the saved critic again, checks the stored certificate against it, and writes it; also a witness."""
    settings = checked(config, root={**RUN, "witness": str | None})
    run = load_run(**run_named(settings))
    proved = certify_critic(run.critic, units=run.units)
    path = run.directory / CERTIFICATE
    note = "new"
    if path.exists():
        try:
            verify(Certificate.load(path), run.critic, units=run.units)
            note = "agrees with the stored one"
        except InputError as error:
            note = f"replaces a stored one that did not verify: {error}"
    try:
        proved.save(path)
    except OSError as error:  # the proof holds whether or not it can be written
        note = f"not written: {error.strerror}; it {note}"
    say(screens.certificate(proved, path, note))
    if settings["witness"] is not None:
        constant = save_witness(run.critic, settings["witness"], units=run.units)
        above = "" if constant <= proved.lipschitz else ", above the certificate because windows overlap"
        say(screens.witnessed(settings["witness"], f"Lip(f) ≤ {constant!r}{above}"))
