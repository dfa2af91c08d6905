"""What machines can do: a table of devices' peaks, and measurements of this one."""
