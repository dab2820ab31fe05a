"""What the code keeps and what the unit wants: inversion, maximum impulses, dreams, perturbations, illusions, fooling.

`engine` is the one loop over a `task`, with `moves`, `finish` and `mend`; `pixels`, `network`, `images`, `objectives`,
`priors`, `transforms`, `constraints` and `optimisers` are its parts; `invert`, `maximize`, `dream`, `illusions` and
`fooling` are recipes that put them together.
`adversarial` stands on `lbfgs`, `elites` on `patterns`. Everything is in byte units about the mean (see `pixels`).
"""
