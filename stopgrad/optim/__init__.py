"""Optimisers, parameter groups and schedules. Learning rates are scaled where used and never written back."""
