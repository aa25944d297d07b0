"""Training of FaceMe in its two published stages (arXiv 2501.05177; published code modyu-liu/FaceMe, train.py).

Stage 1 trains ControlNet and Mix, stage 2 the ControlNet. Published behaviour is the default, and every defect of the
published script that changes what is learnt is an option of its own: see `settings`. The library takes arrays and
files of features and knows no Hydra; the loop, resuming and averages are those of `ffhqref.training`.
"""
