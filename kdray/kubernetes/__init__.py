"""What Kubernetes is told: overlays become manifests, and manifests are checked before a cluster sees them."""
