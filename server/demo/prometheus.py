"""The demo's own Prometheus: deploy/prometheus, pointed at the demo's sidecar, in a hurry.

Its files are in the demo's directory and made anew by every run. They differ from those in
deploy/prometheus in the target and in time, because a demo lasts a minute: it scrapes every second,
and what an alert of drift there waits 15 minutes for holds for 5 seconds here. The other rules wait
as long as they do anywhere. It ends with the demo.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from server.demo.processes import choose_port, end, spawn, tail
from server.errors import StartError

PROGRAM = "prometheus"
PORT = 9090
READY_S = 30.0
ASK_S = 1.0  # between two looks at the alerts
SCRAPE = "1s"
SECONDS_PER_MINUTE = 1 / 3
DRIFT_RULES = "drift.yml"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


def find_prometheus() -> str:
    """Return the path of the program.

    Raises
    ------
    StartError
        It is not installed.
    """
    if found := shutil.which(PROGRAM):
        return found
    raise StartError(
        "the demo needs prometheus for --prometheus, and there is none. `make demo PROMETHEUS=1` "
        "installs it; so does, on Debian: apt-get install prometheus"
    )


def write_config(folder: Path, target: str) -> Path:
    """Write the configuration and the rules for a sidecar; return the configuration's path.

    Parameters
    ----------
    folder : Path
        What is there is removed.
    target : str
        host:port.
    """
    if not DEPLOY.is_dir():
        raise StartError(f"{DEPLOY} is not there: run the demo from a checkout of Scoregate")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rules").mkdir(parents=True)
    for rules in sorted((DEPLOY / "rules").glob("*.yml")):
        text = rules.read_text(encoding="utf-8")
        if rules.name == DRIFT_RULES:
            text = re.sub(r"(?m)^( +for: )(\d+)m$", _hurry, text)
        (folder / "rules" / rules.name).write_text(text, encoding="utf-8")
    text = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:9464", target)
    text = re.sub(r"(?m)^( +(?:scrape|evaluation)_interval:) \w+", rf"\1 {SCRAPE}", text)
    path = folder / "prometheus.yml"
    path.write_text(text, encoding="utf-8")
    return path


def how_to_start(folder: Path, target: str) -> str:
    """Return what to type to run one; its configuration is written if there is one to write."""
    if shutil.which(PROGRAM) is None or not DEPLOY.is_dir():
        return "(make demo PROMETHEUS=1 brings a Prometheus, too)"
    config = write_config(folder, target)
    return f"{PROGRAM} --config.file={config} --storage.tsdb.path={folder / 'data'}"


def _hurry(found: re.Match[str]) -> str:
    return f"{found[1]}{max(1, round(int(found[2]) * SECONDS_PER_MINUTE))}s"


class Prometheus:
    """A running Prometheus. A context: it is ended on leaving.

    Parameters
    ----------
    folder : Path
        For its configuration, its data and its log; made anew.
    target : str
        The sidecar's host:port.
    any_port : bool
        Whether to take any free port, instead of 9090 where that is free.

    Raises
    ------
    StartError
        It is not installed, or does not start; with the last lines of its log.
    """

    def __init__(self, folder: Path, target: str, *, any_port: bool) -> None:
        program = find_prometheus()
        config = write_config(folder, target)
        self.address = f"127.0.0.1:{choose_port(PORT, any_port=any_port)}"
        self._log_path = folder / "prometheus.log"
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        ]
        with self._log_path.open("w", encoding="utf-8") as log:
            self._process = spawn(command, stdout=log, stderr=log)
        rules = (config.parent / "rules" / DRIFT_RULES).read_text(encoding="utf-8")
        self._names = set(re.findall(r"(?m)^ +- alert: (\w+)$", rules))
        self._alerts: list[list[str]] = []
        self._asked_s = 0.0
        try:
            self._wait()
        except BaseException:
            end(self._process)
            raise

    def _wait(self) -> None:
        limit = time.monotonic() + READY_S
        while self._process.poll() is None and time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise StartError(f"prometheus does not start\n{tail(self._log_path)}")

    def alerts(self) -> list[list[str]]:
        """Return name and state ("pending" or "firing") of each alert of drift that is either.

        Asked once a second at most; where there is no answer, the last one.
        """
        now = time.monotonic()
        if now - self._asked_s >= ASK_S:
            self._asked_s = now
            try:
                with urllib.request.urlopen(
                    f"http://{self.address}/api/v1/alerts", timeout=ASK_S / 2
                ) as answer:
                    found = json.load(answer)["data"]["alerts"]
            except (OSError, ValueError, KeyError):
                return self._alerts
            named = {
                (one["labels"]["alertname"], one["state"])
                for one in found
                if one["labels"]["alertname"] in self._names
            }
            self._alerts = [list(alert) for alert in sorted(named)]
        return self._alerts

    @property
    def lines(self) -> list[str]:
        """What it is, for people."""
        return [
            f"Prometheus: http://{self.address}/alerts, with the rules of deploy/prometheus",
            f"  (those of drift in a hurry: `for: 15m` is {15 * SECONDS_PER_MINUTE:g} s).",
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end(self._process)
