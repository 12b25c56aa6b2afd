"""What methods are put together from: first images, pools of networks, views of real data, teachers, experts."""

__all__: list[str] = []
