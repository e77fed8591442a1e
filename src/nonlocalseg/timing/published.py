"""What the papers measured: ANN's Tables 1 and 2 (Titan Xp, CUDA 9.0) and GALD's Table IV, in SI units."""

from __future__ import annotations

from nonlocalseg.timing.tables import Row

ANN_TABLE_1: dict[tuple[int, int], list[Row]] = {
    (96, 96): [
        {"name": "ANN Table 1: NB", "multiply_adds": 58.0e9, "extra_memory": 609e6, "seconds": 19.5e-3},
        {"name": "ANN Table 1: APNB", "multiply_adds": 15.5e9, "extra_memory": 150e6, "seconds": 12.4e-3},
    ],
    (256, 128): [
        {"name": "ANN Table 1: NB", "multiply_adds": 601.4e9, "extra_memory": 7797e6, "seconds": 179.4e-3},
        {"name": "ANN Table 1: APNB", "multiply_adds": 43.5e9, "extra_memory": 277e6, "seconds": 30.8e-3},
    ],
}
"""C = 2048, embeddings of 256 channels, batch 1, by height and width of the feature map."""

ANN_TABLE_2: list[Row] = [
    {"name": "ANN Table 2: DenseASPP, DenseNet-161", "seconds": 0.568, "memory": 7973e6, "parameters": 35.63e6},
    {"name": "ANN Table 2: PSANet, ResNet-101", "seconds": 0.672, "memory": 5233e6, "parameters": 102.66e6},
    {"name": "ANN Table 2: ANN, ResNet-101", "seconds": 0.611, "memory": 3375e6, "parameters": 63.17e6},
]
"""One 2048x1024 image."""

GALD_TABLE_4: list[Row] = [
    {"name": "GALD Table IV: FCN", "seconds": 60e-3},
    {"name": "GALD Table IV: + ASPP", "seconds": 65e-3, "parameters": 47.5e6},
    {"name": "GALD Table IV: + ASPP + LDv1", "seconds": 70e-3, "parameters_difference": 0.4e6},
    {"name": "GALD Table IV: + ASPP + LDv2", "seconds": 82e-3, "parameters_difference": 2.3e6},
    {"name": "GALD Table IV: + ASPP, ResNet-101", "seconds": 120e-3, "parameters": 65.4e6},
]
"""One 512x512 image, ResNet-50 but for the last row; differences are to the row with ASPP alone."""


def table_1(size: tuple[int, int]) -> list[Row]:
    """The published rows for this size, with their ratio to the published NB; none for other sizes."""
    rows = ANN_TABLE_1.get(size, [])
    return [row | {"overall_ratio": rows[0]["seconds"] / row["seconds"]} for row in rows]
