"""Modules that know no method: backbones, heads, batch norm across processes."""
