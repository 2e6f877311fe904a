"""The ground floor: values and rules; no await, no clock, no I/O."""
