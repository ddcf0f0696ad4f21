"""docs/configuration.md is what the models say."""

from __future__ import annotations

import re
from pathlib import Path

from config.loading import load
from config.models import (
    HandlerPolicySettings,
    HandlerSettings,
    KubeletSettings,
    MetricsSettings,
    Settings,
    StreamingTlsSettings,
)
from config.problems import known_keys
from config.reference import example, render
from config.trust import TrustSettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
UNSET_OF_HANDLERS = (
    "binary",
    "runtime_type",
    "runtime_binary",
    "config_path",
    "root",
    "monitor",
    "base_spec",
)


def test_the_page_equals_its_making() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_key_is_described() -> None:
    page = render()
    for key in known_keys():
        table, _, name = key.rpartition(".")
        heading = f"## `[{table}]`" if table else "## Top of the file"
        section = page.split(heading, 1)[1].split("\n## ", 1)[0]
        assert re.search(
            rf"^\| `{name}` \| [^|]+ \| [^|]+ \| [^|]+\.[^|]* \|$", section.replace(r"\|", ""), re.M
        ), key


def test_the_example_with_its_marks_taken_away_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(re.sub(r"^# ", "", example(), flags=re.M))
    shown = load(file).settings
    assert shown.default_handler == "runc"
    assert set(shown.handlers) == {"NAME"}
    assert shown.handlers["NAME"].model_copy(update=dict.fromkeys(UNSET_OF_HANDLERS)) == HandlerSettings()
    assert (
        shown.model_copy(
            update={
                "default_handler": None,
                "handlers": {},
                "handler_policy": HandlerPolicySettings(),
                "kubelet": KubeletSettings(),
                "images": shown.images.model_copy(
                    update={"trust": TrustSettings(), "namespaced_auth_dir": None, "directory": None}
                ),
                "network": shown.network.model_copy(update={"cache_dir": None}),
                "containers": shown.containers.model_copy(
                    update={"init_binary": None, "seccomp_profile": None}
                ),
                "streaming": shown.streaming.model_copy(update={"tls": StreamingTlsSettings()}),
                "metrics": MetricsSettings(),
            }
        )
        == Settings()
    )


def test_what_the_example_shows_for_unset_keys_is_what_they_amount_to(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(re.sub(r"^# ", "", example(), flags=re.M))
    shown, default = load(file).settings, Settings()
    assert shown.cni_cache_dir == default.cni_cache_dir
    assert shown.handler_root("NAME") == default.handler_root("NAME")
