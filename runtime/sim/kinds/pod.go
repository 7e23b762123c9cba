package kinds

import (
	corev1 "k8s.io/api/core/v1"
)

// podSpec gives a pod's or a template's spec its defaults.
func podSpec(s *corev1.PodSpec) {
	or(&s.RestartPolicy, corev1.RestartPolicyAlways)
	or(&s.DNSPolicy, corev1.DNSClusterFirst)
	or(&s.SchedulerName, corev1.DefaultSchedulerName)
	set(&s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	set(&s.SecurityContext, corev1.PodSecurityContext{})
	if s.ServiceAccountName != "" {
		s.DeprecatedServiceAccount = s.ServiceAccountName
	} else if s.DeprecatedServiceAccount != "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	for i := range s.Containers {
		container(&s.Containers[i], s.HostNetwork)
	}
	for i := range s.InitContainers {
		container(&s.InitContainers[i], s.HostNetwork)
	}
	for i := range s.Volumes {
		volume(&s.Volumes[i].VolumeSource)
	}
}

func container(c *corev1.Container, hostNetwork bool) {
	or(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	or(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	or(&c.ImagePullPolicy, pullPolicy(c.Image))
	for i := range c.Ports {
		or(&c.Ports[i].Protocol, corev1.ProtocolTCP)
		if hostNetwork {
			or(&c.Ports[i].HostPort, c.Ports[i].ContainerPort)
		}
	}
	for i := range c.Env {
		if f := c.Env[i].ValueFrom; f != nil && f.FieldRef != nil {
			or(&f.FieldRef.APIVersion, "v1")
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		probe(p)
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil && h.HTTPGet != nil {
				httpGet(h.HTTPGet)
			}
		}
	}
	// A limit without a request is its own request.
	for name, q := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = q.DeepCopy()
		}
	}
}

func probe(p *corev1.Probe) {
	if p == nil {
		return
	}
	or(&p.TimeoutSeconds, 1)
	or(&p.PeriodSeconds, 10)
	or(&p.SuccessThreshold, 1)
	or(&p.FailureThreshold, 3)
	if p.HTTPGet != nil {
		httpGet(p.HTTPGet)
	}
	if p.GRPC != nil {
		set(&p.GRPC.Service, "")
	}
}

func httpGet(h *corev1.HTTPGetAction) {
	or(&h.Path, "/")
	or(&h.Scheme, corev1.URISchemeHTTP)
}

// pullPolicy is Always for the tag latest, said or implied.
func pullPolicy(image string) corev1.PullPolicy {
	tag, digest := "", false
	for i := len(image) - 1; i >= 0 && image[i] != '/'; i-- {
		if image[i] == '@' {
			digest = true
		}
		if image[i] == ':' {
			tag = image[i+1:]
		}
	}
	if !digest && (tag == "" || tag == "latest") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func volume(v *corev1.VolumeSource) {
	mode := func(p **int32) { set(p, corev1.SecretVolumeSourceDefaultMode) }
	switch {
	case v.Secret != nil:
		mode(&v.Secret.DefaultMode)
	case v.ConfigMap != nil:
		mode(&v.ConfigMap.DefaultMode)
	case v.DownwardAPI != nil:
		mode(&v.DownwardAPI.DefaultMode)
		fieldRefs(v.DownwardAPI.Items)
	case v.Projected != nil:
		mode(&v.Projected.DefaultMode)
		for i := range v.Projected.Sources {
			if t := v.Projected.Sources[i].ServiceAccountToken; t != nil {
				set(&t.ExpirationSeconds, 3600)
			}
			if d := v.Projected.Sources[i].DownwardAPI; d != nil {
				fieldRefs(d.Items)
			}
		}
	case v.HostPath != nil:
		set(&v.HostPath.Type, corev1.HostPathUnset)
	case *v == (corev1.VolumeSource{}):
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
}

func fieldRefs(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		if items[i].FieldRef != nil {
			or(&items[i].FieldRef.APIVersion, "v1")
		}
	}
}

// QOSClass is the quality-of-service class of a pod in its JSON form:
// Guaranteed when every container's limits equal its requests for cpu and
// memory, BestEffort when there are none, else Burstable.
func QOSClass(pod map[string]any) string {
	spec, _ := pod["spec"].(map[string]any)
	any_, all := false, true
	for _, field := range []string{"containers", "initContainers"} {
		list, _ := spec[field].([]any)
		for _, c := range list {
			m, _ := c.(map[string]any)
			r, _ := m["resources"].(map[string]any)
			lim, _ := r["limits"].(map[string]any)
			req, _ := r["requests"].(map[string]any)
			for _, name := range []string{"cpu", "memory"} {
				if lim[name] != nil || req[name] != nil {
					any_ = true
				}
				if lim[name] == nil || lim[name] != req[name] {
					all = false
				}
			}
		}
	}
	switch {
	case !any_:
		return string(corev1.PodQOSBestEffort)
	case all:
		return string(corev1.PodQOSGuaranteed)
	}
	return string(corev1.PodQOSBurstable)
}
