{{- define "hitless.fullname" -}}
{{- /* At most 46 letters: with "-drill" it names a CronJob (52). What is cut is told apart by its hash. */}}
{{- $word := .Values.nameOverride | default "hitless" }}
{{- $name := include "hitless.cut" (list .Release.Name 32) }}
{{- if not (contains $word $name) }}{{ $name = printf "%s-%s" $name $word }}{{ end }}
{{- include "hitless.cut" (list (.Values.fullnameOverride | default $name) 46) }}
{{- end }}

{{- define "hitless.cut" -}}
{{- $name := index . 0 }}{{ $most := index . 1 }}
{{- if gt (len $name) $most }}{{ $name = printf "%s-%s" ($name | trunc (int (sub $most 9)) | trimSuffix "-") (sha256sum $name | trunc 8) }}{{ end }}
{{- $name }}
{{- end }}

{{- /* For what is not in the release's namespace. A colon: no name of a namespace or an object can hold one. */}}
{{- define "hitless.wide" -}}
{{ printf "%s:%s" .Release.Namespace (include "hitless.fullname" .) }}
{{- end }}

{{- /* Labels of pods: dict "root" $ "more" LABELS. The chart's own win, then these, then commonLabels. */}}
{{- define "hitless.podLabels" -}}
{{- $own := dict "app.kubernetes.io/name" "hitless" "app.kubernetes.io/instance" .root.Release.Name }}
{{- $own = merge $own (dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service) }}
{{- toYaml (merge $own (.more | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{- /* Labels of everything else: a new version of the chart alone restarts no pod. */}}
{{- define "hitless.labelsWith" -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- include "hitless.podLabels" (dict "root" .root "more" (merge $chart (.more | default dict))) }}
{{- end }}

{{- define "hitless.labels" -}}
{{- include "hitless.labelsWith" (dict "root" .) }}
{{- end }}

{{- define "hitless.selector" -}}
app.kubernetes.io/name: hitless
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hitless.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "hitless.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hitless.agent" -}}
{{- $agent := .Values.drill.agent -}}
{{ $agent.namespace }}/{{ $agent.daemonSet }}{{ with $agent.container }}/{{ . }}{{ end }}
{{- end }}

{{- /* What a drill, and its rehearsal by helm test, are told. */}}
{{- define "hitless.drill" -}}
- --namespace={{ .Release.Namespace }}
- --image={{ include "hitless.image" . }}
- --pull-policy={{ .Values.image.pullPolicy }}
- --agent={{ include "hitless.agent" . }}
- --restart={{ .Values.drill.restart }}
- --rounds={{ .Values.drill.rounds }}
- --family={{ .Values.drill.family }}
{{- with .Values.drill.rate }}
- --rate={{ . }}
{{- end }}
{{- with .Values.drill.pushgateway }}
- {{ printf "--push-metrics=%s" . | quote }}
{{- end }}
{{- with .Values.drill.windows }}{{ if .configMap }}
- --configmap={{ $.Release.Namespace }}/{{ .configMap }}
- --skip-outside
{{- with .cluster }}
- {{ printf "--window-cluster=%s" . | quote }}
{{- end }}
{{- with .needs }}
- --needs={{ . }}
{{- end }}
{{- end }}{{ end }}
{{- with .Values.drill.abortAfter }}
- --abort-after={{ if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}
{{- with .Values.drill.nodeSelector }}
- {{ printf "--node-selector=%s" . | quote }}
{{- end }}
{{- range .Values.drill.to }}
- {{ printf "--to=%s" . | quote }}
{{- end }}
{{- range .Values.image.pullSecrets }}
- --pull-secret={{ . }}
{{- end }}
{{- end }}

{{- /* Where a drill's driver, and its rehearsal, run, and as what: the restricted Pod Security Standard. */}}
{{- define "hitless.driver" -}}
serviceAccountName: {{ include "hitless.fullname" . }}-drill
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
{{- with include "hitless.pullSecrets" . }}
{{- . }}
{{- end }}
{{- with .Values.drill.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
nodeSelector:
  {{- toYaml (merge (dict) (.Values.drill.podNodeSelector | default dict) (dict "kubernetes.io/os" "linux")) | nindent 2 }}
{{- with .Values.drill.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.drill.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- /* Its program. The last words of one that failed are in its status: kubectl describe shows them. */}}
{{- define "hitless.driverContainer" -}}
name: drill
image: {{ include "hitless.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [hitless, drill, --cluster]
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .Values.drill.resources | nindent 2 }}
{{- end }}

{{- define "hitless.netAdmin" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [NET_ADMIN]
{{- end }}
