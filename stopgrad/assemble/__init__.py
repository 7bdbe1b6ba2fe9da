"""The one place that turns a Recipe into objects: trains, evaluates, loads a finished run."""
