"""YOLOv5's blocks, rebuilt from the published description.

All map [B, C, H, W] to [B, C', H', W']; their parts are named as in YOLOv5, so that its checkpoints fit.
`last_conv` is the convolution that makes a block's output.
"""

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int | None = None):
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        # YOLOv5 has momentum 0.03, for some 10^5 steps. In runs of a few hundred steps the running statistics
        # would lag so far behind that a trained network still evaluates at chance.
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.1)
        self.act = nn.SiLU()  # in place it would cost a copy, for its gradient needs the input

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    last_conv = property(lambda self: self.conv)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to the input if `shortcut`."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class _Concatenation(torch.autograd.Function):
    """`torch.cat` along the channels, with contiguous gradients.

    cat's own gradients are views of one tensor. In channels-last memory such a view has gaps after every
    pixel, and the next kernel (SiLU's backward) takes 5 times as long as on a copy.
    """

    @staticmethod
    def forward(ctx, *parts: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in gradient.split(ctx.channels, 1))


class C3(nn.Module):
    """Cross-stage partial block with three convolutions and `n` bottlenecks."""

    def __init__(self, c_in: int, c_out: int, n: int, shortcut: bool = True):
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(c_in, hidden)
        self.cv3 = Conv(2 * hidden, c_out)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.m(self.cv1(x)), self.cv2(x)
        fused = torch.compiler.is_compiling()  # a compiler arranges the memory itself
        return self.cv3(torch.cat(parts, 1) if fused else _Concatenation.apply(*parts))

    last_conv = property(lambda self: self.cv3.conv)


class SPPF(nn.Module):
    """Spatial pyramid pooling: one 5x5 maximum, applied three times in a row."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.cv1 = Conv(c_in, c_in // 2)
        self.cv2 = Conv(c_in * 2, c_out)
        self.m = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))

    last_conv = property(lambda self: self.cv2.conv)
