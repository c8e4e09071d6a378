"""COLMAP's bundle adjustment with a robust loss: what models are compared after."""

import pycolmap


def adjust_robustly(model: pycolmap.Reconstruction, scales: tuple[float, ...] = (0.25, 0.1, 0.05)) -> None:
    """COLMAP's bundle adjustment in place, intrinsics fixed, under a Cauchy loss of ever smaller scales (px).

    Precise keypoints only pay with a loss as tight as they are.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_principal_point = options.refine_extra_params = False
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.max_num_iterations = 50
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    for scale in scales:
        options.ceres.loss_function_scale = scale
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
