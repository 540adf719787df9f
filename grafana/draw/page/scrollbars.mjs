// react-custom-scrollbars-2 is CommonJS; bundlers disagree on where its default export is.
import * as whole from 'scrollbars-original';

const inner = whole.default?.__esModule ? whole.default : whole;
export const Scrollbars = inner.Scrollbars;
export default inner.default ?? inner.Scrollbars;
