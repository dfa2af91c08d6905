"""What keeps a run from hanging or being lost: watchdog, heartbeat, preemption."""
