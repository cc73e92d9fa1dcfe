"""KubeRay 1.7's operator, played: what its reconcile loops do with what we render, as read from its source.

`network` is Kubernetes' arithmetic of labels, `cluster` makes pods and services of a RayCluster, `jobs` and `serving`
are the loops of RayJob and RayService, `world` is the API server, the kubelets and the clock around them. What a
document of ours has no use for is left out; where the operator would fail, these fail.
"""
