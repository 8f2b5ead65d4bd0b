"""What a training run is told: the schema, the loader and the converter of the original project's files."""

from civae_core.config.schema import Config, DataConfig, LossConfig, ModelConfig, TrainConfig

__all__ = ["Config", "DataConfig", "LossConfig", "ModelConfig", "TrainConfig"]
