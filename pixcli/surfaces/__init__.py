"""Points as small planes, measured in their views."""
