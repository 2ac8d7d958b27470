"""Settings: `trimtab.toml`, then `TRIMTAB_*` variables, then flags. A key that nobody knows is refused.

A service's own settings subclass `Settings`; in the file they stand in a table of the service's name, as variables
they are `TRIMTAB_<SERVICE>_<NAME>`. Names that the whole house shares are `TRIMTAB_<NAME>` and stand on top of the file.
A few old names keep their plain form (`EXCHANGE`, `TIMEFRAME`, `TRADE_SYMBOLS`, ...). A secret may lie in a file
instead, which `TRIMTAB_<NAME>_FILE` names.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.contracts.errors import NeedsOperator

PORTS = {
    "ops_api": 2,
    "engine": 3,
    "ingester": 13,
    "backtest_suite": 14,
    "ml_service": 15,
    "param_controller": 16,
    "governor": 17,
    "venue_sim": 18,
    "notifier": 19,
}
PORT_BASE = 8000
LEAST_KEY = 16  # characters: what is shorter can be guessed

Words = Annotated[tuple[str, ...], NoDecode]  # "BTC-USDT, ETH-USDT" or a list


class Settings(BaseSettings):
    """What the whole house shares. Subclasses add what one service needs."""

    SERVICE: ClassVar[str] = ""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="TRIMTAB_", frozen=True, populate_by_name=True)

    data_dir: Path = Field(Path("var"), description="Where this service keeps what it must not lose.")
    host: str = Field("127.0.0.1", description="Address to listen on. Loopback unless you know why not.")
    port_base: int = Field(
        PORT_BASE, ge=0, le=65_535 - 19, description="Ports are this plus each service's own number; 0 takes free ones."
    )
    nats_url: str = Field("nats://127.0.0.1:4222", description="The NATS server, or several separated by commas.")
    nats_user: str = Field("", description="This service's NATS user; empty where the server asks for none.")
    nats_password: SecretStr = Field(SecretStr(""), description="Its password.")
    api_token: SecretStr = Field(
        SecretStr(""), description="Needed by routes that change something; empty: they are refused."
    )
    viewer_token: SecretStr = Field(SecretStr(""), description="May look, where looking is not open; nothing else.")
    operator_token: SecretStr = Field(SecretStr(""), description="May command: pause, resume, ingest; and look.")
    trainer_token: SecretStr = Field(SecretStr(""), description="May train models; and look.")
    model_key: SecretStr = Field(
        SecretStr(""), description="Signs models; where it is set, one that was not signed with it is refused."
    )
    mode: Literal["paper", "live"] = Field("paper", description="Live also needs TRIMTAB_LIVE=<account>.")
    live: str = Field("", description="The account that may trade for real, said again.")
    account: str = Field("main", description="The account's name.")
    venue: str = Field(
        "sim", validation_alias=AliasChoices("TRIMTAB_VENUE", "EXCHANGE"), description="sim, binance, ..."
    )
    venue_url: str = Field(
        "", description="Base address of a venue that speaks Binance's dialect here; empty: the real one."
    )
    timeframe: str = Field("1m", validation_alias=AliasChoices("TRIMTAB_TIMEFRAME", "TIMEFRAME"))
    dry_run: bool = Field(
        False,
        validation_alias=AliasChoices("TRIMTAB_DRY_RUN", "DRY_RUN"),
        description="Refuse everything that changes something outside.",
    )
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    restarts: int = Field(0, description="How often the launcher started this service anew; set by the launcher.")

    @field_validator("model_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key) < LEAST_KEY:
            raise ValueError(f"must have at least {LEAST_KEY} characters, had {len(key)}")
        return key

    @property
    def signing_key(self) -> bytes:
        """What models are signed with; empty: they are not."""
        return self.model_key.get_secret_value().encode()

    @property
    def strategies_folder(self) -> Path:
        """Where users' own strategies lie."""
        return strategies_folder()

    @property
    def port(self) -> int:
        """This service's port; 0 asks the system for a free one."""
        return 0 if self.port_base == 0 else self.port_base + PORTS[self.SERVICE]

    def address_of(self, service: str) -> str:
        """Where another service answers HTTP. In compose the host is the service's name, set by TRIMTAB_<NAME>_URL."""
        return os.environ.get(f"TRIMTAB_{service.upper()}_URL") or f"http://127.0.0.1:{self.port_base + PORTS[service]}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if isinstance(env_settings, EnvSettingsSource):  # TRIMTAB_STRATEGIES is a folder, and no field `strategies`
            given = env_settings.env_vars.items()
            env_settings.env_vars = {key: value for key, value in given if key.upper() not in HOUSE_VARIABLES}
        return (
            init_settings,
            _OwnVariables(settings_cls),
            env_settings,
            _SecretFiles(settings_cls),
            _TomlFile(settings_cls),
        )

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Read file, variables and flags. Raises NeedsOperator naming each wrong key with the nearest right one."""
        refuse_unknown_variables(cls)
        try:
            return cls(**flags)
        except ValidationError as error:
            raise NeedsOperator(_explained(error, cls)) from error


def strategies_folder() -> Path:
    """Where users' own strategies lie: `TRIMTAB_STRATEGIES`, or `strategies` where one stands."""
    return Path(os.environ.get("TRIMTAB_STRATEGIES", "strategies"))


class _TomlFile(PydanticBaseSettingsSource):
    """`trimtab.toml`: shared keys on top, the service's own in its table."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        path = Path(os.environ.get("TRIMTAB_CONFIG", "trimtab.toml"))
        if not path.exists():
            return {}
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise NeedsOperator(f"{path} is not TOML: {error}.") from error
        service = getattr(self.settings_cls, "SERVICE", "")
        own: dict[str, Any] = content.get(service, {})
        shared = {key: value for key, value in content.items() if key not in PORTS}
        return {**shared, **own}


class _OwnVariables(PydanticBaseSettingsSource):
    """`TRIMTAB_<SERVICE>_<NAME>`: one service's own value, before the shared one."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        prefix = f"TRIMTAB_{getattr(self.settings_cls, 'SERVICE', '').upper()}_"
        names = set(self.settings_cls.model_fields)
        found = {key[len(prefix) :].lower(): value for key, value in os.environ.items() if key.startswith(prefix)}
        return {key: value for key, value in found.items() if key in names}


class _SecretFiles(PydanticBaseSettingsSource):
    """`TRIMTAB_<NAME>_FILE`: the file in which a secret lies, as Docker hands them over."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        service = getattr(self.settings_cls, "SERVICE", "").upper()
        found: dict[str, Any] = {}
        for name in secrets_of(self.settings_cls):
            for variable in (f"TRIMTAB_{name.upper()}_FILE", f"TRIMTAB_{service}_{name.upper()}_FILE"):
                if path := os.environ.get(variable):
                    try:
                        found[name] = Path(path).read_text(encoding="utf-8").strip()
                    except (OSError, UnicodeDecodeError) as error:
                        raise NeedsOperator(f"{variable} names {path}, which cannot be read: {error}.") from error
        return found


def secrets_of(cls: type[BaseSettings]) -> list[str]:
    """The settings that are never printed."""
    return [name for name, field in cls.model_fields.items() if field.annotation is SecretStr]


# Variables of the house that are not settings of a service.
HOUSE_VARIABLES = {"TRIMTAB_CONFIG", "TRIMTAB_TEST_DATA", "TRIMTAB_STRATEGIES", "TRIMTAB_CACHE", "TRIMTAB_STDIN_STOPS"}


def refuse_unknown_variables(cls: type[Settings]) -> None:
    """A `TRIMTAB_*` variable that means nothing is a spelling mistake: raise NeedsOperator with the nearest name."""
    shared = {f"TRIMTAB_{name.upper()}" for name in Settings.model_fields}
    own_prefix = f"TRIMTAB_{cls.SERVICE.upper()}_"
    own = {f"{own_prefix}{name.upper()}" for name in cls.model_fields}
    files = {f"{prefix}{name.upper()}_FILE" for name in secrets_of(cls) for prefix in ("TRIMTAB_", own_prefix)}
    known = shared | own | files | HOUSE_VARIABLES | {f"TRIMTAB_{name.upper()}_URL" for name in PORTS}
    others = tuple(f"TRIMTAB_{name.upper()}_" for name in PORTS if name != cls.SERVICE)
    for variable in os.environ:
        if variable.startswith("TRIMTAB_") and variable not in known and not variable.startswith(others):
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise NeedsOperator(f"The variable {variable} means nothing here.{hint}")


def _explained(error: ValidationError, cls: type[Settings]) -> str:
    lines: list[str] = []
    hidden = secrets_of(cls)
    for one in error.errors():
        key = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, cls.model_fields, n=1)
            lines.append(f"Unknown setting {key!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        else:
            was = "" if key in hidden else f", was {one.get('input')!r}"
            lines.append(f"Setting {key!r}: {one['msg']}{was}.")
    return " ".join(lines)


def words(value: Any) -> Any:
    """`"BTC-USDT, ETH-USDT"` -> (`BTC-USDT`, `ETH-USDT`); lists stay. For a `field_validator(mode="before")`."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
