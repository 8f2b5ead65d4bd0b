"""The config of a training run: its schema, its loader, and a converter for the original project's files."""

from civae_core.config.convert import Converted, convert_file
from civae_core.config.dump import config_schema, config_template, dump_config
from civae_core.config.load import ConfigError, load_config
from civae_core.config.schema import Config, DataConfig, LossConfig, ModelConfig, TrainConfig

__all__ = [
    "Config",
    "ConfigError",
    "Converted",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "TrainConfig",
    "config_schema",
    "config_template",
    "convert_file",
    "dump_config",
    "load_config",
]
