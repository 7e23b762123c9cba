package requests

// definitions are the custom kinds that the cases use: a namespaced one with
// status, scale, defaults, pruning and rules; one of two versions without
// status; and a cluster-scoped one.
var definitions = []string{`
metadata: {name: widgets.conform.rutter.dev}
spec:
  group: conform.rutter.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wd], categories: [conform]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "!has(self.color) || self.color != 'pink'", message: pink is not a color}
            properties:
              size: {type: integer, minimum: 1, maximum: 9, default: 1}
              color: {type: string, enum: [red, green, blue, pink]}
              fixed:
                type: string
                x-kubernetes-validations: [{rule: self == oldSelf, message: fixed is immutable}]
              replicas: {type: integer, minimum: 0}
              any: {type: object, x-kubernetes-preserve-unknown-fields: true}
              port: {x-kubernetes-int-or-string: true}
              tags: {type: array, items: {type: string}, x-kubernetes-list-type: set}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties:
                    name: {type: string}
                    weight: {type: integer, default: 5}
              atoms: {type: array, items: {type: string}, x-kubernetes-list-type: atomic}
              note: {type: string, nullable: true, maxLength: 10, pattern: "^[a-z]*$"}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
              phase: {type: string}
`, `
metadata: {name: gadgets.conform.rutter.dev}
spec:
  group: conform.rutter.dev
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: &gadget
        type: object
        properties:
          spec:
            type: object
            properties:
              mode: {type: string}
              parts:
                type: array
                items: {type: object, properties: {name: {type: string}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    deprecationWarning: conform.rutter.dev/v1beta1 Gadget is deprecated
    schema: {openAPIV3Schema: *gadget}
  - name: v1alpha1
    served: false
    storage: false
    schema: {openAPIV3Schema: *gadget}
`, `
metadata: {name: fleets.conform.rutter.dev}
spec:
  group: conform.rutter.dev
  scope: Cluster
  names: {plural: fleets, singular: fleet, kind: Fleet, listKind: FleetList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [members]
            properties:
              members: {type: array, minItems: 1, items: {type: string}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`}
