"""From photos to instances with a bundle, and back to pictures. No torch in here.

    image_io -> preprocess -> openvino_engine -> postprocess -> render
                      \\________ predictor ________/

Import from the modules: this package imports none of them, so that reading a manifest does not
cost an import of OpenVINO.
"""

__all__: list[str] = []
