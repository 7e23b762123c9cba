package sim

import (
	"encoding/json"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"
)

// columns are the table columns of the query's resource.
func (q *query) columns() []column {
	if q.res.gr() == grEvents {
		return eventColumns
	}
	cols := []column{nameColumn}
	if q.res.crd == nil {
		own, ok := tableColumns[q.res.gr().String()]
		if !ok {
			own = []column{ageColumn}
		}
		return append(cols, own...)
	}
	hasAge := false
	if v := q.res.crd.versions[q.version]; v != nil {
		for _, p := range v.def.AdditionalPrinterColumns {
			path := jsonpath.New(p.Name).AllowMissingKeys(true)
			if err := path.Parse("{" + p.JSONPath + "}"); err != nil {
				continue // as the server, which leaves out a column that it cannot read
			}
			typ := p.Type
			hasAge = hasAge || p.Name == "Age"
			cols = append(cols, column{
				metav1.TableColumnDefinition{Name: p.Name, Type: p.Type, Format: p.Format, Description: p.Description, Priority: p.Priority},
				func(o *unstructured.Unstructured, now time.Time) any { return customCell(path, typ, o, now) },
			})
		}
	}
	if !hasAge {
		cols = append(cols, ageColumn)
	}
	return cols
}

func customCell(path *jsonpath.JSONPath, typ string, o *unstructured.Unstructured, now time.Time) any {
	found, err := path.FindResults(o.Object)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return nil
	}
	v := found[0][0].Interface()
	if typ == "date" {
		s, _ := v.(string)
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return "<unknown>"
		}
		return duration.HumanDuration(now.Sub(t))
	}
	switch v.(type) {
	case string, int64, float64, bool, nil:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return string(b)
}

// table renders entries as a Table, with each row's metadata.
func (q *query) table(c *Cluster, l listing) ([]byte, error) {
	cols := q.columns()
	t := metav1.Table{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"},
		ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(l.rv, 10), Continue: l.token}, Rows: []metav1.TableRow{},
	}
	for _, col := range cols {
		t.ColumnDefinitions = append(t.ColumnDefinitions, col.TableColumnDefinition)
	}
	now := q.now
	for _, e := range l.entries {
		row := metav1.TableRow{}
		for _, col := range cols {
			row.Cells = append(row.Cells, col.cell(e.obj, now))
		}
		var err error
		if q.values.Get("includeObject") == "Object" {
			row.Object.Raw, err = e.json()
		} else {
			row.Object = runtime.RawExtension{}
			row.Object.Raw, err = json.Marshal(map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": e.obj.Object["metadata"]})
		}
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
	}
	return json.Marshal(t)
}
