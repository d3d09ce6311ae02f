"""The config of a run: what it holds (`sections`), and how it is read and checked (`reading`)."""

from sipo.config.reading import differences, is_config_file, load_config, parse_config
from sipo.config.sections import (
    Config,
    DataConfig,
    KeepBest,
    LogConfig,
    ModelConfig,
    Offload,
    PolicyConfig,
    Quantization,
    ReferenceConfig,
    SampleConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "KeepBest",
    "LogConfig",
    "ModelConfig",
    "Offload",
    "PolicyConfig",
    "Quantization",
    "ReferenceConfig",
    "SampleConfig",
    "TrainConfig",
    "differences",
    "is_config_file",
    "load_config",
    "parse_config",
]
