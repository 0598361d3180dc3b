"""Settings: one typed, frozen model for the environment, the command line and `serve_config.yaml`.

An unknown key is always an error. Nothing is read at import time; the composition root and the command line each call
`Settings.from_environment` once.
"""

import base64
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from serve_app.errors import InvalidRequest
from serve_app.urls import is_url, parse, split_roots

PREFIX = "CONSTELLATE_"

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


class SettingsError(ValueError):
    """A setting is unknown or has an unusable value; the message names it."""


class Settings(BaseModel):
    """Every setting of the service; the table in README.md lists them too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: str = Field("127.0.0.1", description="address the ingress listens on")
    port: int = Field(8000, ge=1, le=65535, description="port the ingress listens on")
    data_dir: Path = Field(Path("data"), description="holds constellate.duckdb, thumbnails and files for search")
    cache_dir: Path = Field(
        Path("~/.cache/constellate"), description="holds models converted for CPUs; may be deleted at any time"
    )
    dataset_roots: tuple[Path | str, ...] = Field(
        (Path("."),), description="folders and URLs under which datasets may lie, separated by ':'"
    )
    allow_private_urls: bool = Field(
        False, description="let http(s) images and manifests come from private, loopback and link-local addresses"
    )
    model: str = Field("dinov2-base", description="default model of generate")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="cuda, then mps, then cpu when auto")
    precision: Precision = Field("auto", description="fp32 on cpu and bf16 on cuda when auto; int8 is cpu only")
    max_replicas: int | None = Field(
        None, ge=1, le=1024, description="upper bound of DINOv2 autoscaling; GPUs, or CPU cores without one"
    )
    min_replicas: int | None = Field(
        None, ge=1, le=1024, description="replicas that stay when idle; all on one machine without GPUs, otherwise 1"
    )
    gpus_per_replica: float | None = Field(
        None, ge=0, le=16, description="GPUs of one DINOv2 replica, fractions allowed; 1 where there are GPUs"
    )
    pin_writer: bool = Field(
        False, description="keep the database on a node with the Ray resource duckdb_writer, and wait for that node"
    )
    api_key: str | None = Field(
        None, min_length=1, repr=False, description="when set, every route but /healthz wants Authorization: Bearer"
    )

    notify_key: str | None = Field(
        None,
        repr=False,
        description="signs the webhooks of jobs: base64 of 24 to 64 bytes (`openssl rand -base64 32`)",
    )

    @field_validator("dataset_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return split_roots(value) if isinstance(value, str) else value

    @field_validator("dataset_roots", mode="after")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path | str, ...]) -> tuple[Path | str, ...]:
        if not value:
            raise ValueError("name at least one folder or URL")
        try:
            return tuple(
                str(parse(str(root))) if is_url(str(root)) else Path(root).expanduser().resolve() for root in value
            )
        except InvalidRequest as error:
            raise ValueError(error.detail) from None

    @field_validator("api_key", mode="after")
    @classmethod
    def _fits_a_header(cls, value: str | None) -> str | None:
        if value is not None and (value != value.strip() or not value.isprintable()):
            raise ValueError("the key has white space at an end or a control character, which no header can carry")
        return value

    @field_validator("notify_key", mode="after")
    @classmethod
    def _is_a_secret(cls, value: str | None) -> str | None:
        try:
            n_bytes = 32 if value is None else len(base64.b64decode(value.removeprefix("whsec_"), validate=True))
        except ValueError:
            n_bytes = 0
        if not 24 <= n_bytes <= 64:
            raise ValueError("the key is base64 of 24 to 64 bytes: make one with `openssl rand -base64 32`")
        return value

    @field_validator("data_dir", "cache_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **overrides: object) -> "Settings":
        """Read `CONSTELLATE_<NAME>` variables; `overrides` that are not None replace their values.

        Raises:
            SettingsError: a variable is unknown (the message suggests the nearest name) or a value is unusable.
        """
        values: dict[str, object] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
                raise SettingsError(f"unknown setting {variable}{hint}")
            if text != "":
                values[name] = text
        values.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SettingsError(problems) from None

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` builds the same settings."""
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None:
                continue
            text = os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)
            values[PREFIX + name.upper()] = text
        return values

    @property
    def database_path(self) -> Path:
        """The path of the one DuckDB file."""
        return self.data_dir / "constellate.duckdb"

    @property
    def sets_path(self) -> Path:
        """The folder of this node that keeps sets of vectors as files that are searched (`search.set_files`)."""
        return self.data_dir / "sets"

    @property
    def url(self) -> str:
        """The URL at which clients reach the ingress."""
        return f"http://{self.host}:{self.port}"
