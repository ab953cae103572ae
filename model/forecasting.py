"""Where earlier versions had the settings of a forecaster: programs of their users import them from here."""

from model.training.forecast_config import ForecastConfig

__all__ = ("ForecastConfig",)
