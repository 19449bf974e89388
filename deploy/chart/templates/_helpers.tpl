{{- define "hitless.fullname" -}}
{{- /* Room for "-drill" and the suffixes of a CronJob's Jobs and pods; the alerts find the Jobs by the word hitless. */}}
{{- $name := .Release.Name | trunc 32 | trimSuffix "-" }}
{{- if contains "hitless" $name }}{{ $name }}{{ else }}{{ printf "%s-hitless" $name }}{{ end }}
{{- end }}

{{- define "hitless.labels" -}}
app.kubernetes.io/name: hitless
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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

{{- define "hitless.netAdmin" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [NET_ADMIN]
{{- end }}
