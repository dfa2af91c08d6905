"""Before a run: what it will need and how long it takes, at every layout that there is. After 20 steps: was it so?

* `layers` runs the real layers under fake tensors: bytes kept, operations, messages. `tracing` counts them.
* `states` says what DeepSpeed keeps, `memory` puts both together, `step_time` and `links` say how long it takes on a
  `hardware.devices.Device` or on this machine as `calibration` has measured it.
* `layouts` gives the layouts, `plan` weighs them, `report` shows them, `commands` is `iberis plan`, `in_run` the
  prediction beside the facts in every training run.
"""
