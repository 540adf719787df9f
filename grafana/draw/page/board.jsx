// Draws one dashboard, handed over by draw.mjs together with the data of every panel, with Grafana's own components.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { applyFieldOverrides, createTheme, FieldType, getDisplayProcessor, ThemeContext, toDataFrame } from '@grafana/data';
import {
  BigValue, BigValueColorMode, BigValueGraphMode, BigValueTextMode, GlobalStyles, LegendDisplayMode, PanelChrome, Table, TimeSeries,
} from '@grafana/ui';

const COLUMN = 58;
const LINE = 38;
const GAP = 8;
const theme = createTheme({ colors: { mode: 'dark' } });

/** The field configuration of a panel, in the form that components expect. */
function config(panel, name) {
  const defaults = panel.fieldConfig.defaults;
  const steps = defaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  return {
    ...defaults,
    displayName: name,
    thresholds: { ...defaults.thresholds, steps },
    custom: { drawStyle: 'line', lineWidth: 1, fillOpacity: 10, showPoints: 'never', ...defaults.custom },
  };
}

/** One frame for each series. */
function frames(panel, series) {
  const data = series.map(({ name, points }, index) =>
    toDataFrame({
      refId: String(index),
      fields: [
        { name: 'Time', type: FieldType.time, values: points.map(([time]) => time * 1000), config: {} },
        { name, type: FieldType.number, values: points.map(([, value]) => value), config: config(panel, name) },
      ],
    }));
  const fieldConfig = { defaults: {}, overrides: [] };
  return applyFieldOverrides({ data, fieldConfig, replaceVariables: (text) => text, theme, timeZone: 'utc' });
}

/** A line breaks where there was no sample. */
const last = (field) => field.values.findLast((value) => value !== null);

function Stat({ panel, data, width, height }) {
  const each = Math.floor(width / data.length);
  const value = (frame) => {
    const field = frame.fields[1];
    const shown = getDisplayProcessor({ field: { ...field, config: { ...field.config, color: { mode: 'thresholds' } } }, theme });
    return { ...shown(last(field)), title: field.name };
  };
  const text = panel.options.textMode === 'value_and_name' ? BigValueTextMode.ValueAndName : BigValueTextMode.Value;
  return (
    <div className="values">
      {data.map((frame, index) => (
        <BigValue key={index} theme={theme} width={each} height={height} value={value(frame)} textMode={text}
          colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.Area} sparkline={{ y: frame.fields[1], x: frame.fields[0] }} />
      ))}
    </div>
  );
}

function Lines({ data, width, height, from, to }) {
  const at = (seconds) => ({ valueOf: () => seconds * 1000 });
  const range = { from: at(from), to: at(to), raw: { from: String(from), to: String(to) } };
  const legend = { displayMode: LegendDisplayMode.List, placement: 'bottom', showLegend: true, calcs: [] };
  return <TimeSeries frames={data} width={width} height={height} timeRange={range} timeZone="utc" legend={legend} options={{}} />;
}

function Rows({ rows, width, height }) {
  const names = Object.keys(rows[0]);
  const fields = names.map((name) => ({
    name, type: FieldType.string, values: rows.map((row) => row[name] ?? ''), config: { custom: {} },
  }));
  const [data] = applyFieldOverrides({
    data: [toDataFrame({ fields })], fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (text) => text, theme, timeZone: 'utc',
  });
  return <Table data={data} width={width} height={height} />;
}

function Content(props) {
  const { panel, answer, width, height } = props;
  if (panel.type === 'table') {
    return answer.rows.length ? <Rows rows={answer.rows} width={width} height={height} /> : <div className="empty">No data</div>;
  }
  if (!answer.series.length) {
    return <div className="empty">No data</div>;
  }
  const data = frames(panel, answer.series);
  return panel.type === 'stat' ? <Stat {...props} data={data} /> : <Lines {...props} data={data} />;
}

function Place({ panel, answer, from, to }) {
  const { x, y, w, h } = panel.gridPos;
  const style = { left: x * COLUMN + GAP, top: y * LINE + GAP };
  if (panel.type === 'row') {
    return <div className="place heading" style={style}>{panel.title}</div>;
  }
  const [width, height] = [w * COLUMN - GAP, h * LINE - GAP];
  return (
    <div className="place" style={style}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(innerWidth, innerHeight) => (
          <Content panel={panel} answer={answer} width={innerWidth} height={innerHeight} from={from} to={to} />
        )}
      </PanelChrome>
    </div>
  );
}

window.drawBoard = ({ dashboard, answers, from, to }) => {
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const board = document.getElementById('board');
  board.style.width = `${24 * COLUMN + GAP}px`;
  board.style.height = `${bottom * LINE + GAP}px`;
  createRoot(board).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {dashboard.panels.map((panel) => <Place key={panel.id} panel={panel} answer={answers[panel.id]} from={from} to={to} />)}
    </ThemeContext.Provider>,
  );
};
