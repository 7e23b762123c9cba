package kinds

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// set gives *p the value when it is nil.
func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// or gives *p the value when it is the zero value.
func or[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Default fills in what the API server fills in for the kind. Source: the
// field comments of k8s.io/api and the API reference.
func Default(obj runtime.Object) {
	switch o := obj.(type) {
	case *corev1.Pod:
		podSpec(&o.Spec)
		set(&o.Spec.EnableServiceLinks, true)
	case *corev1.PodTemplate:
		podSpec(&o.Template.Spec)
	case *corev1.ReplicationController:
		replicationController(o)
	case *corev1.Service:
		service(o)
	case *corev1.Secret:
		secret(o)
	case *corev1.ConfigMap:
	//lint:ignore SA1019 served by every cluster still
	case *corev1.Endpoints:
		for i := range o.Subsets {
			for j := range o.Subsets[i].Ports {
				or(&o.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
			}
		}
	case *corev1.PersistentVolumeClaim:
		set(&o.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	case *corev1.PersistentVolume:
		set(&o.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
		or(&o.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	case *policyv1.PodDisruptionBudget:
	case *autoscalingv2.HorizontalPodAutoscaler:
		hpaV2(o)
	case *autoscalingv1.HorizontalPodAutoscaler:
		set(&o.Spec.MinReplicas, 1)
	case *apiextensionsv1.CustomResourceDefinition:
		apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(o)
	case *discoveryv1.EndpointSlice:
		for i := range o.Ports {
			set(&o.Ports[i].Name, "")
			set(&o.Ports[i].Protocol, corev1.ProtocolTCP)
		}
	case *schedulingv1.PriorityClass:
		set(&o.PreemptionPolicy, corev1.PreemptLowerPriority)
	case *storagev1.StorageClass:
		set(&o.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
		set(&o.VolumeBindingMode, storagev1.VolumeBindingImmediate)
	case *networkingv1.NetworkPolicy:
		networkPolicy(o)
	default:
		defaultWorkload(obj)
		defaultWebhooks(obj)
		defaultRBAC(obj)
	}
}

func defaultWorkload(obj runtime.Object) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		set(&o.Spec.Replicas, 1)
		set(&o.Spec.RevisionHistoryLimit, 10)
		set(&o.Spec.ProgressDeadlineSeconds, 600)
		or(&o.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
		if o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
			set(&o.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
			set(&o.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
			set(&o.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
		}
		podSpec(&o.Spec.Template.Spec)
	case *appsv1.ReplicaSet:
		set(&o.Spec.Replicas, 1)
		podSpec(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		statefulSet(o)
	case *appsv1.DaemonSet:
		set(&o.Spec.RevisionHistoryLimit, 10)
		or(&o.Spec.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
		if o.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
			set(&o.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
			set(&o.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
			set(&o.Spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
		}
		podSpec(&o.Spec.Template.Spec)
	case *batchv1.Job:
		jobSpec(&o.Spec)
		if len(o.Labels) == 0 && len(o.Spec.Template.Labels) > 0 {
			o.Labels = o.Spec.Template.Labels
		}
	case *batchv1.CronJob:
		or(&o.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
		set(&o.Spec.Suspend, false)
		set(&o.Spec.SuccessfulJobsHistoryLimit, 3)
		set(&o.Spec.FailedJobsHistoryLimit, 1)
		podSpec(&o.Spec.JobTemplate.Spec.Template.Spec)
	}
}

// replicationController takes labels and selector from the template.
func replicationController(o *corev1.ReplicationController) {
	set(&o.Spec.Replicas, 1)
	if t := o.Spec.Template; t != nil {
		podSpec(&t.Spec)
		if len(o.Spec.Selector) == 0 {
			o.Spec.Selector = t.Labels
		}
		if len(o.Labels) == 0 {
			o.Labels = t.Labels
		}
	}
}

func statefulSet(o *appsv1.StatefulSet) {
	set(&o.Spec.Replicas, 1)
	set(&o.Spec.RevisionHistoryLimit, 10)
	or(&o.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	or(&o.Spec.UpdateStrategy.Type, appsv1.RollingUpdateStatefulSetStrategyType)
	if o.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		set(&o.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
		set(&o.Spec.UpdateStrategy.RollingUpdate.Partition, 0)
	}
	set(&o.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	or(&o.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	or(&o.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	for i := range o.Spec.VolumeClaimTemplates {
		t := &o.Spec.VolumeClaimTemplates[i]
		or(&t.Kind, "PersistentVolumeClaim")
		or(&t.APIVersion, "v1")
		set(&t.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
		or(&t.Status.Phase, corev1.ClaimPending)
	}
	podSpec(&o.Spec.Template.Spec)
}

func jobSpec(s *batchv1.JobSpec) {
	if s.Completions == nil && s.Parallelism == nil {
		set(&s.Completions, 1)
	}
	set(&s.Parallelism, 1)
	set(&s.BackoffLimit, 6)
	set(&s.CompletionMode, batchv1.NonIndexedCompletion)
	set(&s.Suspend, false)
	set(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	set(&s.ManualSelector, false)
	podSpec(&s.Template.Spec)
}

func service(o *corev1.Service) {
	s := &o.Spec
	or(&s.Type, corev1.ServiceTypeClusterIP)
	or(&s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		set(&s.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		set(&s.SessionAffinityConfig.ClientIP, corev1.ClientIPConfig{})
		set(&s.SessionAffinityConfig.ClientIP.TimeoutSeconds, 10800)
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		or(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == (intstr.IntOrString{}) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if s.Type == corev1.ServiceTypeExternalName {
		return
	}
	set(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	if s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer {
		or(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		set(&s.AllocateLoadBalancerNodePorts, true)
	}
}

func secret(o *corev1.Secret) {
	or(&o.Type, corev1.SecretTypeOpaque)
	for k, v := range o.StringData {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[k] = []byte(v)
	}
	o.StringData = nil
}

func hpaV2(o *autoscalingv2.HorizontalPodAutoscaler) {
	set(&o.Spec.MinReplicas, 1)
	if len(o.Spec.Metrics) == 0 {
		o.Spec.Metrics = []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(80)),
			}},
		}}
	}
	if b := o.Spec.Behavior; b != nil {
		scaling := func(r **autoscalingv2.HPAScalingRules, policies []autoscalingv2.HPAScalingPolicy, window *int32) {
			if *r == nil {
				*r = &autoscalingv2.HPAScalingRules{}
			}
			set(&(*r).SelectPolicy, autoscalingv2.MaxChangePolicySelect)
			if len((*r).Policies) == 0 {
				(*r).Policies = policies
			}
			if (*r).StabilizationWindowSeconds == nil {
				(*r).StabilizationWindowSeconds = window
			}
		}
		scaling(&b.ScaleUp, []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}, new(int32(0)))
		scaling(&b.ScaleDown, []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}, nil)
	}
}

func networkPolicy(o *networkingv1.NetworkPolicy) {
	if len(o.Spec.PolicyTypes) == 0 {
		o.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(o.Spec.Egress) > 0 {
			o.Spec.PolicyTypes = append(o.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	port := func(ps []networkingv1.NetworkPolicyPort) {
		for i := range ps {
			set(&ps[i].Protocol, corev1.ProtocolTCP)
		}
	}
	for i := range o.Spec.Ingress {
		port(o.Spec.Ingress[i].Ports)
	}
	for i := range o.Spec.Egress {
		port(o.Spec.Egress[i].Ports)
	}
}

func defaultWebhooks(obj runtime.Object) {
	switch o := obj.(type) {
	case *admissionv1.MutatingWebhookConfiguration:
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			set(&w.FailurePolicy, admissionv1.Fail)
			set(&w.MatchPolicy, admissionv1.Equivalent)
			set(&w.NamespaceSelector, metav1.LabelSelector{})
			set(&w.ObjectSelector, metav1.LabelSelector{})
			set(&w.TimeoutSeconds, 10)
			set(&w.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
			webhookClient(&w.ClientConfig, w.Rules)
		}
	case *admissionv1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			set(&w.FailurePolicy, admissionv1.Fail)
			set(&w.MatchPolicy, admissionv1.Equivalent)
			set(&w.NamespaceSelector, metav1.LabelSelector{})
			set(&w.ObjectSelector, metav1.LabelSelector{})
			set(&w.TimeoutSeconds, 10)
			webhookClient(&w.ClientConfig, w.Rules)
		}
	case *admissionv1.ValidatingAdmissionPolicy:
		set(&o.Spec.FailurePolicy, admissionv1.Fail)
		if m := o.Spec.MatchConstraints; m != nil {
			set(&m.MatchPolicy, admissionv1.Equivalent)
			set(&m.NamespaceSelector, metav1.LabelSelector{})
			set(&m.ObjectSelector, metav1.LabelSelector{})
			for i := range m.ResourceRules {
				set(&m.ResourceRules[i].Scope, admissionv1.AllScopes)
			}
		}
	}
}

func webhookClient(c *admissionv1.WebhookClientConfig, rules []admissionv1.RuleWithOperations) {
	if c.Service != nil {
		set(&c.Service.Port, 443)
	}
	for i := range rules {
		set(&rules[i].Scope, admissionv1.AllScopes)
	}
}

func defaultRBAC(obj runtime.Object) {
	subjects := func(ss []rbacv1.Subject) {
		for i := range ss {
			if ss[i].Kind == rbacv1.UserKind || ss[i].Kind == rbacv1.GroupKind {
				or(&ss[i].APIGroup, rbacv1.GroupName)
			}
		}
	}
	switch o := obj.(type) {
	case *rbacv1.RoleBinding:
		or(&o.RoleRef.APIGroup, rbacv1.GroupName)
		subjects(o.Subjects)
	case *rbacv1.ClusterRoleBinding:
		or(&o.RoleRef.APIGroup, rbacv1.GroupName)
		subjects(o.Subjects)
	}
}
