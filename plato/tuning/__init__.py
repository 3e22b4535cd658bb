"""Tunes models for planning: examples, training samples, LoRA, calibration."""
