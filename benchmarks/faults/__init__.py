"""`make bench-faults`: runs that are killed, damaged, told to stop and denied their disk, counted.

Everything is a fork of a parent that has imported torch and never computes: a run of seconds costs no imports.
"""
